"""Starting where something is missing that a process usually has: one line says so, or the server serves."""

from __future__ import annotations

import contextlib
import os
import select
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Launch
from tests.servers import TIMEOUT
from tests.service_manager import NotifyReceiver


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
