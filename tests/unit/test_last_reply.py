"""The client of a killed worker: a last reply, unless another worker serves the client by then."""

from __future__ import annotations

import os
import selectors
import signal
import socket
from collections.abc import Iterator

import pytest

from linepool.ipc.board import Board, MasterView, WorkerView
from linepool.kernel.pidfd import ChildProcess
from linepool.master.last_reply import LastReply


@pytest.fixture
def dead() -> Iterator[ChildProcess]:
    """Give a process that was killed."""
    pid = os.fork()
    if pid == 0:
        signal.pause()
        os._exit(0)
    process = ChildProcess(pid)
    process.send(signal.SIGKILL)
    assert process.is_dead(10)
    yield process
    process.reap()
    process.close()


@pytest.mark.parametrize("is_served", [True, False])
def test_a_connection_that_was_handed_off_before_the_kill_goes_on(dead, is_served):
    ours, client = socket.socketpair()
    with selectors.DefaultSelector() as selector, ours, client:
        client.settimeout(10)
        reply = LastReply(
            ours.dup(), dead, lambda: is_served, lambda send: send(b"the end\r\n"), selector
        )
        reply.turn()
        if is_served:
            assert client.recv(100) == b"the end\r\n"
            assert client.recv(100) == b""
        else:
            assert reply.is_over
            ours.sendall(b"of another worker\r\n")
            assert client.recv(100) == b"of another worker\r\n"
        reply.close()


def test_the_board_says_which_connection_is_served():
    page = Board()
    slot, worker = MasterView(page).slot(0), WorkerView(page, 0)
    worker.serving(77, 6)

    assert slot.serves(5, 77)
    assert not slot.serves(5, 78)
    assert not slot.serves(6, 77)

    worker.idle(0, 1)
    assert not slot.serves(5, 77)
