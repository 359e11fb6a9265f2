"""What a worker leaves behind: threads' work, exit functions, and what one request has set for the next."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.conftest import Launch
from tests.servers import ServerProcess

SCHEMES = ("shared", "dispatch", "accept")


@pytest.fixture
def start(launch: Launch, tmp_path: Path):
    """Start servers with a journal."""

    def begin(*options: str) -> ServerProcess:
        environment = {"JOURNAL": str(tmp_path / "journal")}
        return launch("leaving.py", "--workers", "1", *options, environment=environment)

    return begin


def noted(server: ServerProcess) -> list[tuple[int, str]]:
    """Return the lines of the journal: pid and text."""
    lines = (server.directory / "journal").read_text().splitlines()
    return [(int(pid), text) for pid, _, text in (line.partition(" ") for line in lines)]


# -- threads


@pytest.mark.scheme(*SCHEMES)
def test_a_worker_that_leaves_waits_for_its_threads(start, tmp_path: Path):
    server = start()
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    assert server.ask(f"LATER {gate}") == "accepted"
    server.send(signal.SIGTERM)
    assert "threads=bookkeeper" in server.wait_for("waiting for threads before the exit")
    gate.write_bytes(b"go on")
    assert server.ended() == 0
    texts = [text for _, text in noted(server)]
    assert texts.index("resource closed") < texts.index("thread done")
    assert "cut off" not in server.text


def test_threads_that_are_not_done_within_the_graceful_timeout_are_cut_off_and_named(start):
    server = start("--graceful-timeout", "3")
    assert server.ask("STUCK") == "accepted"
    assert server.stop() == 0
    assert "threads=endless" in next(line for line in server.log if "threads cut off" in line)


@pytest.mark.parametrize("waits", [False, True])
def test_an_immediate_stop_does_not_wait_for_threads(start, waits: bool):
    server = start("--graceful-timeout", "60")
    assert server.ask("STUCK") == "accepted"
    if waits:
        server.send(signal.SIGTERM)
        server.wait_for("waiting for threads before the exit")
    server.send(signal.SIGINT)
    assert server.ended() == 0  # at once, not after 60 s


# -- exit functions


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_exit_functions_run_in_the_process_that_registered_them(start, how: signal.Signals):
    server = start()
    (worker,) = server.pids()
    own = Path(server.ask("REGISTER"))
    shared = Path(server.ask("PLACE"))
    assert own.is_dir()
    server.send(how)
    assert server.ended() == 0

    assert not own.exists()
    assert not shared.exists()
    mine = [text for pid, text in noted(server) if pid == worker]
    assert sorted(mine) == [
        "finalizer made in the worker",
        "registered in the worker",
        "resource closed",
    ]
    theirs = [text for pid, text in noted(server) if pid != worker]
    assert sorted(theirs) == ["finalizer made before the fork", "registered before the fork"]


def test_a_recycled_worker_does_not_remove_what_was_made_before_the_fork(start):
    server = start("--max-requests", "1", "--max-requests-jitter", "0")
    (worker,) = server.pids()
    shared = Path(server.ask("PLACE"))
    server.until_gone(worker)
    assert shared.is_dir()


# -- context variables


@pytest.mark.scheme(*SCHEMES)
def test_context_variables_end_with_their_request(start):
    server = start()
    script = b"LOGIN ada\nWHO\nSTREAMED eve\nWHO\nIN_MIDDLEWARE\nWHO\nQUIT\n"
    said = server.converse(script).decode().split()
    assert said == ["ada", "worker", "eve", "eve", "END", "worker", "middleware", "worker", "OK"]
    assert server.ask("WHO") == "worker"
