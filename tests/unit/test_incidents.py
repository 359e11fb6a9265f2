"""The ring of incidents: its records, what is the same incident, and its file."""

from __future__ import annotations

import contextlib
import errno
import json
import mmap
import os
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from linepool import SetupError
from linepool.ipc.figures import MOST_NOTED, Row, noted
from linepool.ipc.figures.words import NOTE, NOTE_AT
from linepool.ipc.incidents import HEAD_BYTES, RECORDS, TOTAL_BYTES, IncidentMemory, Reader, Writer
from linepool.ipc.incidents.words import LAST_CHANGE_AT, MOST_FACTS, RECORD_BYTES, place_of
from linepool.master.incidents import DIED, KILLED, RELOAD_FAILED, TIMEOUT, Incidents
from linepool.operate.incident_file import open_incidents, taken_over
from tests.conftest import OTHER_USER
from tests.servers import TIMEOUT as PATIENCE

STACK = [("/srv/app.py", 7, "inner"), ("/srv/app.py", 9, "outer")]
_WRITTEN = 5000
TEXT = st.text(st.characters(codec="utf-8"), max_size=5000)

_HOLD = """
import sys
import time
from linepool.operate.incident_file import open_incidents
memory = open_incidents(sys.argv[1])
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def memory() -> IncidentMemory:
    return IncidentMemory()


def facts(**more: object) -> dict[str, object]:
    return {"kind": "died", "why": None, "stack": [], **more}


def numbers(memory: IncidentMemory) -> list[int]:
    return [one["number"] for one in Reader(memory).records()]


# -- the ring


def test_an_empty_ring_has_no_records(memory):
    assert Reader(memory).records() == []


def test_the_newest_records_take_the_places_of_the_oldest(memory):
    writer = Writer(memory)
    for number in range(RECORDS + 5):
        writer.add(facts(why=f"reason {number}"), 1.0, 2.0)

    records = Reader(memory).records()

    assert [one["number"] for one in records] == list(range(6, RECORDS + 6))
    assert records[-1]["why"] == f"reason {RECORDS + 4}"
    assert not writer.extend(5, 3.0)
    assert writer.extend(6, 3.0)
    assert Reader(memory).records()[0]["count"] == 2


def test_only_what_has_changed_is_read_again(memory):
    writer, reader = Writer(memory), Reader(memory)
    first, second = writer.add(facts(), 1.0, 1.0), writer.add(facts(), 2.0, 2.0)
    since = max(one["change"] for one in reader.records())

    assert reader.records(since) == []
    assert writer.extend(first, 3.0)
    (changed,) = reader.records(since)
    assert (changed["number"], changed["first"], changed["last"]) == (first, 1.0, 3.0)
    assert [one["number"] for one in reader.records()] == [first, second]
    assert len(reader.records(changed["change"] + 1)) == 2  # that was of an earlier server


@given(st.lists(st.tuples(TEXT, st.integers(0, 2**31), TEXT), max_size=120), TEXT)
def test_any_stack_and_text_has_room(calls, text):
    memory = IncidentMemory()
    incidents = Incidents(memory)
    stack = [(file.replace("\n", ""), line, name) for file, line, name in calls]

    incidents.note(DIED, stack, command=text, why=text, client=text, id=text)

    (record,) = incidents.records()
    kept = [(one["file"], one["line"], one["function"]) for one in record["stack"]]
    assert kept == [(file[-200:], line, name[:200]) for file, line, name in stack][: len(kept)]
    assert len(json.dumps(record["stack"])) <= 16384 + 2
    memory.close()


def test_half_a_record_is_not_shown(memory):
    writer = Writer(memory)
    for _ in range(3):
        writer.add(facts(), 1.0, 1.0)

    memory.map[place_of(1)] += 1  # it is being written
    memory.map[place_of(2) + LAST_CHANGE_AT] += 1
    memory.map[place_of(3) + 60] ^= 1  # it was not written completely

    assert Reader(memory).records() == []
    assert not writer.extend(3, 2.0)
    assert writer.add(facts(), 4.0, 4.0) == 4
    assert numbers(memory) == [4]


@given(st.binary(min_size=1, max_size=100))
def test_nonsense_is_not_shown(data):
    memory = IncidentMemory()
    memory.map[HEAD_BYTES : HEAD_BYTES + RECORD_BYTES] = (data * RECORD_BYTES)[:RECORD_BYTES]

    assert Reader(memory).records() == []
    memory.close()


def test_records_are_on_pages_of_their_own():
    assert RECORD_BYTES % mmap.PAGESIZE == 0
    assert MOST_FACTS > 16384 + 2048


def test_another_process_takes_it_over(memory):
    Writer(memory).add(facts(), 1.0, 1.0)
    handed, (descriptor,) = memory.handed_over()

    other = IncidentMemory.taken_over(handed, [os.dup(descriptor)])
    assert Writer(other).add(facts(), 2.0, 2.0) == 2

    assert numbers(memory) == [1, 2]


def test_of_another_form_it_is_not_taken_over(memory):
    handed, (descriptor,) = memory.handed_over()
    copy = os.dup(descriptor)

    new = taken_over(({**handed, "head": "00"}, [copy]), "")

    assert numbers(new) == []
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(copy)


@pytest.mark.parametrize("place", ["memory", "file"])
def test_a_fork_reads_whole_records_while_they_are_written(tmp_path, place):
    """As the exporter does: it has the map, and closes the descriptors."""
    memory = open_incidents(str(tmp_path / "inc") if place == "file" else "")
    writer = Writer(memory)
    child = os.fork()
    if child == 0:
        status = 1
        with contextlib.suppress(BaseException):
            memory.close()
            newest = 0
            while newest < _WRITTEN:
                for one in Reader(memory).records():
                    assert one["why"] == str(one["number"]) * (one["number"] % 50)
                    assert one["first"] == one["number"]
                    newest = max(newest, one["number"])
            status = 0
        os._exit(status)
    for number in range(1, _WRITTEN + 1):
        writer.add(facts(why=str(number) * (number % 50)), float(number), float(number))
        writer.extend(max(1, number - 3), 0.0)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    memory.close()


# -- what is the same incident


def test_the_same_incident_within_a_minute_is_counted():
    incidents = Incidents(IncidentMemory())
    incidents.note(TIMEOUT, STACK, command="ADD", client="first", id="a")
    incidents.note(TIMEOUT, STACK, command="ADD", client="second", id="b")
    incidents.note(TIMEOUT, STACK, command="MUL")
    incidents.note(KILLED, STACK, command="ADD", why="took longer than 1 s")
    incidents.note(TIMEOUT, STACK[1:], command="ADD")
    incidents.note(RELOAD_FAILED, why="one")
    incidents.note(RELOAD_FAILED, why="another")

    records = incidents.records()

    assert [one["count"] for one in records] == [2, 1, 1, 1, 1, 1]
    assert (records[0]["client"], records[0]["id"]) == ("first", "a")
    assert records[0]["first"] <= records[0]["last"]
    assert records[3]["stack"] == [{"file": "/srv/app.py", "line": 9, "function": "outer"}]


def test_after_a_minute_it_is_another_one(monkeypatch):
    incidents = Incidents(IncidentMemory())
    incidents.note(DIED, STACK, command="ADD")
    monkeypatch.setattr("linepool.master.incidents._SAME_S", 0.0)
    incidents.note(DIED, STACK, command="ADD")

    assert [one["count"] for one in incidents.records()] == [1, 1]


def test_the_next_program_counts_on():
    memory = IncidentMemory()
    Incidents(memory).note(DIED, STACK, command="ADD")
    Incidents(memory).note(DIED, STACK, command="ADD")

    assert [one["count"] for one in Incidents(memory).records()] == [2]


def test_saturation_is_one_incident_as_long_as_it_lasts(monkeypatch):
    monkeypatch.setattr("linepool.master.incidents._LASTING_S", 0.0)
    incidents = Incidents(IncidentMemory())
    incidents.saturated(5.0, "3 connections wait")
    (begun,) = incidents.records()
    incidents.saturated(6.0, "9 connections wait")
    (lasting,) = incidents.records()

    assert begun["last"] - begun["first"] == pytest.approx(5.0)
    assert (lasting["count"], lasting["first"]) == (1, begun["first"])
    assert lasting["last"] > begun["last"]
    assert lasting["why"] == "3 connections wait"
    incidents.saturated(0.0, "again")
    (again,) = incidents.records()
    assert again["count"] == 2


# -- notes of workers


def test_a_note_of_a_worker_is_read_once_it_is_whole():
    row = Row()
    view = memoryview(row._slow.obj)
    assert noted(view) == (0, b"")
    row.note(b"x" * MOST_NOTED)
    row.note(b"{}")
    assert noted(view) == (2, b"{}")
    view[NOTE_AT + NOTE.size] ^= 1
    assert noted(view) == (2, b"")
    view[NOTE_AT:] = b"\xff" * len(view[NOTE_AT:])
    assert noted(view)[1] == b""


# -- the file


def refusal(path: object) -> str:
    with pytest.raises(SetupError) as error:
        open_incidents(str(path))
    return str(error.value)


def test_a_file_keeps_incidents_for_the_next_server(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    memory = open_incidents("inc")
    Writer(memory).add(facts(), 1.0, 1.0)
    memory.close()

    memory = open_incidents("inc")

    assert numbers(memory) == [1]
    found = (tmp_path / "inc").stat()
    assert (found.st_size, found.st_mode & 0o777) == (TOTAL_BYTES, 0o600)
    assert found.st_blocks * 512 >= TOTAL_BYTES
    assert not os.get_inheritable(memory.descriptor)
    memory.close()


@pytest.mark.parametrize("content", [b"", bytes(TOTAL_BYTES)])
def test_a_file_that_was_only_begun_is_used(tmp_path, content):
    path = tmp_path / "inc"
    path.write_bytes(content)

    memory = open_incidents(str(path))

    assert Writer(memory).add(facts(), 1.0, 1.0) == 1
    assert [one.name for one in tmp_path.iterdir()] == ["inc"]
    memory.close()


@pytest.mark.parametrize("damage", ["version", "size"])
def test_a_damaged_file_or_one_of_another_version_is_renamed(tmp_path, damage, caplog):
    path = tmp_path / "inc"
    memory = open_incidents(str(path))
    Writer(memory).add(facts(), 1.0, 1.0)
    if damage == "version":
        memory.map[8] += 1
    memory.close()
    if damage == "size":
        os.truncate(path, 5000)

    memory = open_incidents(str(path))

    assert numbers(memory) == []
    assert sorted(one.name for one in tmp_path.iterdir()) == ["inc", "inc.old"]
    assert "it is now" in caplog.text
    memory.close()


def test_a_second_server_is_refused_until_the_first_has_ended(tmp_path):
    path = tmp_path / "inc"
    command = [sys.executable, "-c", _HOLD, str(path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "held\n"
        assert refusal(path) == f"incidents: {path} is in use by another server"
        holder.communicate(timeout=PATIENCE)

    open_incidents(str(path)).close()


def test_mistakes_are_named(tmp_path):
    (tmp_path / "other").write_text("precious\n")
    (tmp_path / "link").symlink_to("other")
    os.mkfifo(tmp_path / "fifo")

    assert "exists and is not a file of incidents" in refusal(tmp_path / "other")
    assert "it is a symbolic link, which is not followed" in refusal(tmp_path / "link")
    assert "exists and is not a file of incidents" in refusal(tmp_path / "fifo")
    assert refusal(tmp_path / "no" / "inc").endswith(f"the directory {tmp_path}/no does not exist")
    assert "Is a directory" in refusal(tmp_path)
    assert (tmp_path / "other").read_text() == "precious\n"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can make files of others")
def test_a_file_of_another_user_is_refused(tmp_path):
    (tmp_path / "inc").touch()
    os.chown(tmp_path / "inc", OTHER_USER, OTHER_USER)

    assert f"belongs to another user (uid {OTHER_USER})" in refusal(tmp_path / "inc")


@pytest.mark.parametrize("is_kept", [True, False])
def test_of_another_program_the_file_is_opened_anew(tmp_path, is_kept):
    path = str(tmp_path / "inc")
    memory = open_incidents(path)
    Writer(memory).add(facts(), 1.0, 1.0)
    handed, descriptors = memory.handed_over()
    copies = [os.dup(descriptor) for descriptor in descriptors]
    memory.close()

    new = taken_over(({**handed, "head": handed["head"] if is_kept else "00"}, copies), path)

    assert numbers(new) == [1]
    assert "in use" in refusal(path)
    new.close()
    open_incidents(path).close()


def test_where_files_cannot_be_allocated_they_are_written(tmp_path, monkeypatch):
    def unable(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "posix_fallocate", unable)

    memory = open_incidents(str(tmp_path / "inc"))

    assert (tmp_path / "inc").stat().st_blocks * 512 >= TOTAL_BYTES
    assert numbers(memory) == []
    memory.close()


def test_a_full_disk_is_named_and_leaves_no_file(tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)

    assert refusal(tmp_path / "inc").endswith(": No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_shortened_meanwhile_is_left(tmp_path, caplog):
    path = tmp_path / "inc"
    incidents = Incidents(open_incidents(str(path)))
    incidents.note(DIED, STACK, command="ADD")
    os.truncate(path, 0)
    assert incidents.records() == []

    incidents.note(DIED, STACK, command="MUL")

    assert [one["command"] for one in incidents.records()] == ["MUL"]
    assert "was shortened" in caplog.text
    incidents.close()


def test_the_lock_stays_with_copies_of_its_descriptor_and_not_with_forks(tmp_path):
    path = tmp_path / "inc"
    memory = open_incidents(str(path))
    _, descriptors = memory.handed_over()
    copies = [os.dup(descriptor) for descriptor in descriptors]
    reader, writer = os.pipe()
    child = os.fork()  # as the parker: it has the map, and closes the descriptors
    if child == 0:
        memory.close()
        for number in (*copies, writer):
            os.close(number)
        os.read(reader, 1)
        os._exit(0)
    memory.close()

    assert "in use" in refusal(path)
    for copy in copies:
        os.close(copy)
    for _ in range(1000):  # the child may not have closed its own yet
        with contextlib.suppress(SetupError):
            open_incidents(str(path)).close()
            break
        time.sleep(0.01)
    assert os.waitpid(child, os.WNOHANG) == (0, 0)
    os.close(writer)
    os.waitpid(child, 0)
