"""What the master tells the parker while its channel has no room."""

from __future__ import annotations

import contextlib
import selectors
from types import SimpleNamespace
from typing import Any

import pytest

from linepool.facts import Answers, AppFacts
from linepool.ipc import channel as channels
from linepool.ipc.board import Board, MasterView
from linepool.ipc.messages import WorkerDied, WorkerStarted
from linepool.master.parker_handle import ParkerHandle
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


def test_a_worker_that_ends_before_the_parker_has_room_is_told_of(workers):
    with selectors.DefaultSelector() as selector:
        handle = ParkerHandle(
            MasterView(Board()), APP, Settings(), [], workers, selector, lambda: None
        )
        ours, theirs = channels.pair()
        ours.setblocking(False)
        theirs.setblocking(False)
        handle._helper = SimpleNamespace(channel=ours, turn=lambda: None)  # type: ignore[assignment]
        handle._messages.append(WorkerDied(7, 0, False))
        while channels.send(ours, WorkerDied(8, 0, False)):
            pass  # the parker does not read

        for slot in list(workers):
            handle.worker_started(slot)
            workers.pop(slot).channel.close()
            handle.worker_died(slot, 0, was_serving=False)
        messages = _received(theirs)
        handle.turn()
        messages += _received(theirs)

        told = [message for message in messages if getattr(message, "slot", 8) < 7]
        assert [type(message) for message in told] == [WorkerStarted, WorkerDied] * 2
        for message in told:
            channels.close_descriptor(message)
        ours.close()
        theirs.close()
