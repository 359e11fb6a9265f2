"""Starting where something is missing that a process usually has: one line says so, or the server serves."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Launch
from tests.servers import ENVIRONMENT, HANDLERS, TIMEOUT
from tests.service_manager import NotifyReceiver

WORKSHOP = str(HANDLERS / "workshop.py")


class UnreadLog:
    """A pipe that is full, and of which nothing is read.

    Args:
        path: For its name.

    Attributes:
        wrapper: Starts a program with its standard error there.
    """

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self._fifo = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(self._fifo, b"x" * select.PIPE_BUF)
        self.wrapper = ("sh", "-c", f'exec "$@" 2>{path}', "sh")

    def make_room(self) -> None:
        """Read what it is full of."""
        assert set(os.read(self._fifo, 2**20)) == set(b"x")

    def wait_for(self, text: str) -> None:
        """Read until a text has come."""
        found = ""
        while text not in found:
            assert select.select([self._fifo], [], [], TIMEOUT)[0], f"no {text!r} in {found!r}"
            found += os.read(self._fifo, 2**20).decode()

    def close(self) -> None:
        """Close it."""
        os.close(self._fifo)


@pytest.fixture
def unread(tmp_path: Path) -> Iterator[UnreadLog]:
    """Give a full pipe."""
    log = UnreadLog(tmp_path / "log")
    yield log
    log.close()


def test_a_server_whose_log_is_full_from_the_start_serves_and_counts_what_it_drops(
    tmp_path, launch: Launch, unread: UnreadLog
):
    with NotifyReceiver(tmp_path / "notify") as receiver:
        notify = {"NOTIFY_SOCKET": receiver.path}
        server = launch(
            bind=("unix:socket",), wrapper=unread.wrapper, environment=notify, ready=False
        )
        receiver.until("READY", "1")
    server.addresses = ["unix:socket"]
    assert server.ask("ADD 2 3") == "5"

    unread.make_room()
    server.order("SCALE 2")
    unread.wait_for("log records dropped: stderr is not being read")
    assert server.stop() == 0


def test_a_server_that_cannot_start_ends_even_if_its_log_is_full(launch: Launch, unread: UnreadLog):
    wrong = launch("workshop.py", "--record", "/proc/none", wrapper=unread.wrapper, ready=False)
    assert wrong.ended() == 1


def in_shell(place: Path, before: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run linepool in a shell that has run a command before, or redirects, where ``...`` is."""
    script = before.replace("...", f'exec {sys.executable} -P -m linepool "$@"')
    return subprocess.run(
        ["sh", "-c", script, "sh", *words],
        cwd=place,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT,
    )


@pytest.mark.linux
@pytest.mark.parametrize(
    ("limit", "words"),
    [
        ("-v 60000", "address space is 60000 KiB: raise it (ulimit -v)"),
        ("-v 100000", "address space is 100000 KiB: raise it (ulimit -v)"),
        ("-f 0", "a file's size is 0 KiB: raise it (ulimit -f)"),
        ("-n 5", "raise it"),
        ("-n 7", "raise it"),
    ],
)
def test_a_limit_that_is_too_low_for_a_server_is_named_in_one_line(tmp_path, limit, words):
    bind = ("--bind", "127.0.0.1:0")
    run = in_shell(tmp_path, f"ulimit {limit}; ...", "run", WORKSHOP, *bind, "--control", "control")
    assert run.returncode == 1
    assert words in run.stderr
    assert len(run.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "words",
    [
        ("run", WORKSHOP, "--log-file", "log"),
        ("run", WORKSHOP, "--record", "recording"),
        ("new", "shop"),
        ("stub", WORKSHOP, "-o", "stub.py"),
    ],
)
def test_a_file_in_a_working_directory_that_has_been_removed_is_refused_in_one_line(
    tmp_path, words
):
    run = in_shell(tmp_path, "mkdir gone; cd gone; rmdir ../gone; ...", *words)
    assert run.returncode == 1
    line = run.stderr.splitlines()[-1]
    assert line.startswith("linepool: ")
    assert line.endswith(": the working directory does not exist any more")
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize("words", [("check", WORKSHOP), ("schema", WORKSHOP), ("--version",)])
def test_a_full_disk_behind_standard_output_is_named_in_one_line(tmp_path, words):
    run = in_shell(tmp_path, "... >/dev/full", *words)
    assert run.returncode == 1
    assert run.stderr == f"linepool: {words[0]} failed: No space left on device\n"


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("words", [("check", WORKSHOP), ("schema", WORKSHOP), ("--help",)])
def test_a_command_runs_without_standard_descriptors(tmp_path, words, closed):
    run = in_shell(tmp_path, f"... {closed}", *words)
    assert run.stderr == ""
    assert run.returncode == 0


def test_what_ends_a_running_master_is_in_its_log(tmp_path):
    script = tmp_path / "broken.py"
    script.write_text(
        "import linepool\n"
        "from linepool.master.master import Master\n"
        "Master.run = lambda master: 1 / 0\n"
        "app = linepool.App()\n"
        "linepool.run(app, log_file='log', control='off', bind='127.0.0.1:0')\n"
    )
    run = subprocess.run(
        [sys.executable, script],
        cwd=tmp_path,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT,
    )
    assert run.returncode == 1
    assert "Traceback" not in run.stderr
    log = (tmp_path / "log").read_text()
    assert " ERROR   master failed pid=" in log
    assert "ZeroDivisionError" in log
