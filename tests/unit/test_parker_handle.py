"""What the master tells the parker while its channel has no room."""

from __future__ import annotations

import contextlib
import selectors
import socket
from types import SimpleNamespace
from typing import Any

import pytest

from linepool.facts import Answers, AppFacts
from linepool.ipc import channel as channels
from linepool.ipc.board import Board, MasterView
from linepool.ipc.messages import PassedConnection, WorkerDied, WorkerStarted
from linepool.master.parker_handle import ParkerHandle
from linepool.master.saved import Saved
from linepool.settings import Settings

APP = AppFacts("test", (), False, False, Answers({}, greets=False), False)


def _received(end: Any) -> list[Any]:
    messages = []
    with contextlib.suppress(EOFError):
        while (message := channels.receive(end)) is not None:
            messages.append(message)
    return messages


@pytest.fixture
def workers():
    """Give two workers, by slot: as much of them as the parker's handle knows."""
    pairs = [channels.pair() for _ in range(2)]
    yield {slot: SimpleNamespace(channel=ours) for slot, (ours, _) in enumerate(pairs)}
    for pair in pairs:
        for end in pair:
            end.close()


@pytest.fixture
def parker():
    """Give a parker that does not read: its channel has no room."""
    ours, theirs = channels.pair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        while channels.send(ours, WorkerDied(8, 0, False)):
            pass
        yield SimpleNamespace(channel=ours, turn=lambda: None, close=lambda: None, theirs=theirs)


@pytest.fixture
def handle(workers, parker):
    """Give the master's handle of that parker."""
    board = MasterView(Board())
    with selectors.DefaultSelector() as selector:
        handle = ParkerHandle(board, APP, Settings(), [], workers, selector, lambda: None)
        handle._helper = parker
        handle._messages.append(WorkerDied(7, 0, False))
        yield handle


def test_a_worker_that_ends_before_the_parker_has_room_is_told_of(handle, workers, parker):
    for slot in list(workers):
        handle.worker_started(slot)
        workers.pop(slot).channel.close()
        handle.worker_died(slot, 0, was_busy=False)
    messages = _received(parker.theirs)
    handle.turn()
    messages += _received(parker.theirs)

    told = [message for message in messages if message.slot < 7]
    assert [type(message) for message in told] == [WorkerStarted, WorkerDied] * 2
    for message in told:
        channels.close_descriptor(message)


def test_the_parker_is_given_connections_of_a_dead_worker_that_it_has_not_heard_of(handle, workers):
    handle.worker_started(0)
    workers.pop(0)
    client, server = socket.socketpair()

    with client:
        handle.adopt(Saved(server))

    assert [type(message) for message in handle._messages][1:] == [WorkerStarted, PassedConnection]
    handle.close()
