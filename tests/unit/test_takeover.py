"""What goes over to another program, without one."""

from __future__ import annotations

import json
import os
import signal
import sys

import pytest

from linepool.errors import SetupError
from linepool.ipc.board import layout_hash
from linepool.kernel.program import Program
from linepool.kernel.sealed_file import sealed_file
from linepool.kernel.way_back import VARIABLE
from linepool.master.takeover import FORMAT, Inherited, check, takeover_facts
from linepool.pool.brake import Brake
from linepool.pool.deadline import StallLog
from linepool.pool.scoreboard import WorkerState
from linepool.pool.status import State
from linepool.settings import Settings, Workers, as_texts, from_texts, known_texts


@pytest.mark.parametrize(
    ("state", "why"),
    [
        ({"format": FORMAT + 1, "version": "9.0"}, "does not read the state of linepool 9.0"),
        ({"format": FORMAT, "version": "9.0", "layout": layout_hash() + 1}, "in another way"),
    ],
)
def test_a_state_that_this_program_does_not_know_is_refused(state, why):
    with pytest.raises(SetupError, match=f"{why}.*restart the server"):
        check(state)


def test_only_the_master_itself_takes_over_and_only_its_child_tries_to():
    def facts(**told):
        return takeover_facts({VARIABLE: json.dumps(told)})

    assert facts(master=os.getpid(), state=5)
    assert facts(master=os.getppid(), state=5, dry=True)
    assert facts(master=os.getppid(), state=5) is None
    assert facts(master=os.getpid(), state=5, dry=True) is None
    assert takeover_facts({VARIABLE: "[]"}) is None
    assert takeover_facts({}) is None


def test_a_program_is_found_again_when_its_links_lead_elsewhere(tmp_path, monkeypatch):
    release, link = tmp_path / "one", tmp_path / "current"
    release.mkdir()
    link.symlink_to(release)
    monkeypatch.setattr(sys, "argv", [f"{link}/linepool", "run"])
    program = Program(
        (f"{link}/python", "-P", f"{link}/linepool", "run", "app.py"),
        {"PYTHONPATH": f"{link}:lib", "HOME": "/"},
        str(link),
    )

    resolved = program.resolved

    assert resolved.arguments == (f"{release}/python", "-P", f"{release}/linepool", "run", "app.py")
    assert resolved.environment == {"PYTHONPATH": f"{release}:{release}/lib", "HOME": "/"}
    assert resolved.directory == str(release)
    assert Program.from_json(json.loads(json.dumps(program.as_json()))) == program


def test_a_program_that_cannot_be_started_leaves_everything_as_it_was(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "release").mkdir()
    reader, writer = os.pipe()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    program = Program((str(tmp_path / "python"),), {}, str(tmp_path / "release"))

    with pytest.raises(FileNotFoundError):
        program.replace({"A": "B"}, [reader, writer])

    assert os.getcwd() == str(tmp_path)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == mask
    assert not os.get_inheritable(reader)
    os.close(reader)
    os.close(writer)


def test_what_is_built_may_close_descriptors_and_all_are_put_back():
    reader, writer = os.pipe()
    state = sealed_file(json.dumps({"pieces": {"pipe": [{}, [reader, writer]]}}).encode())
    inherited = Inherited(state)
    assert not os.get_inheritable(reader)
    inherited.protect()
    os.close(writer)
    other = os.open(os.devnull, os.O_RDONLY)  # it may get the number
    os.write(os.dup(inherited._copies[writer]), b"still open")

    assert inherited.restore() == state

    assert os.get_inheritable(reader)
    os.write(writer, b"!")
    assert os.read(reader, 20) == b"still open!"
    for number in {reader, writer, other, state, *inherited._copies.values()}:
        os.close(number)


def test_a_worker_is_the_same_in_another_version_that_knows_more():
    worker = WorkerState(3, 4711, 2, 1000, State.TAKEN, 2000, requests=7, retiring=True)
    facts = json.loads(json.dumps({**worker.as_json(), "of_a_later_version": 1}))

    assert WorkerState.from_json(facts) == worker


def test_settings_that_this_version_does_not_have_are_left_out():
    texts = as_texts(Settings(workers=Workers(3, 3)))

    assert from_texts(known_texts({**texts, "of_a_later_version": "1"})) == from_texts(texts)


def test_a_refused_command_stays_refused():
    before, after = Brake(2, 30.0, 10.0), Brake(2, 30.0, 10.0)
    before.died("spin", 1.0)
    assert before.died("spin", 2.0)

    after.load(json.loads(json.dumps(before.as_json())))

    assert (after.braked, after.deaths("spin"), after.due_at) == ({"spin": 12.0}, 2, 12.0)


def test_the_time_without_a_master_is_not_charged_however_short():
    stalls = StallLog()
    stalls.absent(100, 130)

    assert stalls.charged(90, 150) == 30
    assert stalls.charged(120, 150) == 20
    assert stalls.periods == [(100, 130)]
