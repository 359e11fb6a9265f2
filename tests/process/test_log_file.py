"""The log in a file: what goes there, and its rotation while several processes write."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
import signal
import threading
from collections import Counter
from pathlib import Path

import pytest

from linepool.errors import SetupError
from linepool.operate import log_file
from linepool.operate.log_file import LogFile
from linepool.operate.log_handler import LineHandler
from linepool.operate.log_limit import LogLimit
from linepool.operate.log_lines import form_for
from tests.conftest import Launch
from tests.process.test_control import linepool
from tests.servers import ServerProcess

APP = """
import logging, linepool
@linepool.handler
def note(text: str) -> str:
    logging.getLogger("app").info("noted %s %s", text, "x" * 5000)  # more than a pipe takes at once
    return "ok"
"""
NOTED = re.compile(r"\S+Z INFO    noted (\d+-\d+) x{5000}")
EVENT = re.compile(r"\S+Z [A-Z]+ +\S.*")


def written_by(server: ServerProcess, client: int, lines: int) -> None:
    """Have workers write lines, each on a connection of its own."""
    for number in range(lines):
        assert server.ask(f"NOTE {client}-{number}") == "ok"


def test_no_line_is_lost_or_torn_while_the_file_is_rotated(tmp_path: Path, launch: Launch):
    (tmp_path / "app.py").write_text(APP)
    path = tmp_path / "server.log"
    server = launch("app.py", "--workers", "4", "--log-file", str(path), "--log-limit", "0")
    clients, lines = 4, 150
    threads = [
        threading.Thread(target=written_by, args=(server, client, lines))
        for client in range(clients)
    ]
    for thread in threads:
        thread.start()
    rotations = 0
    while any(thread.is_alive() for thread in threads):
        rotations += 1
        path.rename(f"{path}.{rotations}")
        if rotations % 2:
            server.send(signal.SIGUSR1)
            while not path.exists():
                pass
        else:
            assert server.order("REOPEN") == f"opened anew {path}"
        if rotations == 2:
            server.send(signal.SIGHUP)  # workers of the next generation write there too
    for thread in threads:
        thread.join()
    server.until(lambda state: {worker["generation"] for worker in state["workers"]} == {2})
    last = path.with_suffix(".last")
    path.rename(last)
    assert server.order("REOPEN") == f"opened anew {path}"
    for client in range(clients):
        written_by(server, client + 100, 1)
    assert server.stop() == 0

    # Only what programs wait for is on standard error.
    assert server.log == [f"listening on {server.address}", "ready: 4 workers"]
    assert rotations > 3
    assert len(re.findall(r"noted 10\d-0 ", path.read_text())) == clients
    parts = [*(Path(f"{path}.{number}") for number in range(1, rotations + 1)), last, path]
    text = "".join(part.read_text() for part in parts)
    noted = Counter(found[1] for found in map(NOTED.fullmatch, text.splitlines()) if found)
    assert noted == Counter(
        [f"{client}-{number}" for client in range(clients) for number in range(lines)]
        + [f"{client + 100}-0" for client in range(clients)]
    )
    others = [line for line in text.splitlines() if not NOTED.fullmatch(line)]
    assert [line for line in others if not EVENT.fullmatch(line)] == []
    for wanted in (f"listening on {server.address}", "ready: 4 workers", "stopping: waiting for"):
        assert sum(wanted in line for line in others) == 1
    assert sum(f"file opened anew path={path}" in line for line in others) == rotations + 1


def test_the_recording_is_opened_anew_too(tmp_path: Path, launch: Launch):
    path = tmp_path / "trace.csv"
    server = launch("workshop.py", "--workers", "1", "--record", str(path), scheme="accept")
    assert server.ask("ADD 1 2") == "3"
    server.until(lambda state: state["tally"]["idle"] == 1)
    path.rename(tmp_path / "old.csv")
    reopened = linepool("reopen", "--control", server.control)

    assert reopened.stdout == f"opened anew {path}\n"
    assert server.ask("ADD 1 2") == "3"
    server.until(lambda state: state["tally"]["idle"] == 1)
    for part in (tmp_path / "old.csv", path):
        head, *rows = part.read_text().splitlines()
        assert (head, len(rows)) == ("at_s,service_s", 1)

    path.unlink()
    path.mkdir()
    with pytest.raises(SetupError, match=f"cannot open {path} anew: Is a directory"):
        server.order("REOPEN")
    assert server.ask("ADD 1 2") == "3"


def test_without_a_file_there_is_nothing_to_open(launch: Launch):
    server = launch("workshop.py", "--workers", "1")
    server.send(signal.SIGUSR1)
    server.wait_for("no file to open anew: the log goes to standard error")
    refused = linepool("reopen", "--control", server.control)
    message = "linepool: there is no file to open anew: the log goes to standard error\n"
    assert (refused.returncode, refused.stderr) == (1, message)


def test_a_log_file_that_cannot_be_opened_is_an_error_at_the_start(tmp_path: Path):
    (tmp_path / "app.py").write_text(APP)
    path = tmp_path / "missing" / "server.log"
    started = linepool("run", str(tmp_path / "app.py"), "--log-file", str(path))
    why = f"linepool: log_file: cannot open {path}: No such file or directory\n"
    assert (started.returncode, started.stderr) == (1, why)


# -- one process


def record(text: str) -> logging.LogRecord:
    """Return a record to write."""
    return logging.LogRecord("app", logging.INFO, __file__, 1, text, (), None)


def test_a_process_that_cannot_open_the_new_file_goes_on_in_the_old_one_and_says_so_once(
    tmp_path: Path,
):
    path = tmp_path / "log"
    file = LogFile(str(path))
    handler = LineHandler(file)
    handler.limit = limit = LogLimit(0)
    handler.handle(record("first"))
    path.rename(tmp_path / "old")
    limit.epoch += 1  # by the master, whose file this process does not see
    handler.handle(record("second"))
    handler.handle(record("third"))

    lines = (tmp_path / "old").read_text().splitlines()
    assert [line.split()[2] for line in lines] == ["first", "second", "log", "third"]
    why = (
        f"WARNING log file cannot be opened anew pid={os.getpid()} path={path} why='No such file or"
    )
    assert why in lines[2]

    path.touch()
    limit.epoch += 1
    handler.handle(record("fourth"))
    assert path.read_text().endswith("fourth\n")
    os.close(file._descriptor)
    handler.handle(record("fifth"))
    assert path.read_text().endswith("fifth\n")


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_full_disk_drops_records_and_counts_them(tmp_path: Path, log_format: str):
    file = LogFile("/dev/full")
    handler = LineHandler(file, form_for(log_format, None))
    for _ in range(3):
        handler.handle(record("lost"))
    os.dup2(os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT), file._descriptor)
    handler.handle(record("kept"))

    lines = (tmp_path / "log").read_text().splitlines()
    assert "3 log records dropped: /dev/full cannot be written" in lines[0]
    assert "kept" in lines[1]
    assert all(log_format == "text" or json.loads(line)["time"] for line in lines)


def test_a_line_longer_than_a_pipe_takes_in_any_case_is_not_mixed_with_others():
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 2**20)
    each, size = 20, 12_000

    def write_lines(letter: bytes) -> None:
        for _ in range(each):
            assert log_file.write_at_once(write, letter * size + b"\n") == b""

    threads = [threading.Thread(target=write_lines, args=(letter,)) for letter in (b"a", b"b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os.close(write)
    with open(read, "rb") as stream:
        lines = stream.read().splitlines()
    assert sorted(lines) == [b"a" * size] * each + [b"b" * size] * each


@pytest.mark.skipif(os.getuid() != 0, reason="needs root")
def test_the_file_belongs_to_the_user_of_the_other_processes(tmp_path: Path):
    file = LogFile(str(tmp_path / "log"), owner=(54321, 54322))
    os.unlink(file.path)
    file.reopen(1)
    found = os.stat(file.path)
    assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (54321, 54322, 0o640)
