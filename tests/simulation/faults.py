"""Faults that linepool once had, put back: the simulation must find each of them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

from attrs import frozen

from linepool.ipc import channel
from linepool.ipc.board import MasterSlot, WorkerView
from linepool.ipc.board.words import HEARD, LIMIT_NS, OVERDUE
from linepool.kernel.event_set import EventSet
from linepool.master.reload import Reload
from linepool.parker.delivery import Delivery


@frozen
class Fault:
    """A fault.

    Attributes:
        about: What is wrong.
        world: The kind of world in which it shows.
        shows: What is said then.
        owner: Of what is replaced.
        name: Likewise.
        wrong: What it was.
        seed: Where a test begins to look. It has shown the fault; when the code changes, another one does.
    """

    about: str
    world: str
    shows: str
    owner: Any
    name: str
    wrong: Any
    seed: int = 0

    @contextlib.contextmanager
    def put_back(self) -> Iterator[None]:
        """Have the fault for a while. Pre-condition: the simulated kernel is there."""
        with mock.patch.object(self.owner, self.name, self.wrong):
            yield


def _wait(self: Any, seconds: float | None) -> Iterator[tuple[int, int]]:
    yield from self._epoll.poll(seconds)


def _next_message(end: Any) -> Any:
    try:
        data, control, _, _ = end.recvmsg(65536, 4096, 0)
    except ConnectionResetError:
        raise EOFError from None
    return data, control


def _overdue(self: Any) -> int | None:
    return int(self._words[LIMIT_NS]) if self._words[OVERDUE] else None


def _is_settled(self: Any) -> bool:
    return not (self._waiting or self.given or self._board.held_by_workers())


def _is_heard(self: Any, _channel: int) -> bool:
    return bool(self._words[HEARD])


def _serves(_self: Any, _descriptor: int, _cookie: int) -> bool:
    return True


def _nothing(*_: object) -> None:
    pass


FAULTS = {
    "number": Fault(
        "an event is matched by the number of its descriptor",
        *("moves", "without a cause", EventSet, "wait", _wait, 4_000_024),
    ),
    "reset": Fault(
        "what a worker has sent before it died is thrown away if the kernel reports a reset first",
        *("deaths", "is lost on its way", channel, "_next_message", _next_message),
        1_000_019,
    ),
    "serial": Fault(
        "RequestTimeout is raised in whatever request is in flight, without its serial number",
        *("limits", "which is not overdue", WorkerView, "overdue_limit_ns", property(_overdue)),
        186,
    ),
    "settled": Fault(
        "the parker ends in a stop with a connection unread that a worker has handed off",
        *("stop", "is lost on its way", Delivery, "is_settled", property(_is_settled)),
        1_000_001,
    ),
    "heard": Fault(
        "a worker counts as known to the parker because the one before it in its slot is",
        *("moves", "waits for ever", MasterSlot, "is_heard", _is_heard, 2_000_719),
    ),
    "reply": Fault(
        "the connection of a killed worker is ended, though its request has just ended and another has it",
        *("kills", "without a cause", MasterSlot, "serves", _serves, 1_000_199),
    ),
    "rolling": Fault(
        "a reload waits without end for workers of a loader that has died meanwhile",
        *("reloads", "a reload does not end", Reload, "_break_off", _nothing),
    ),
    "bounds": Fault(
        "the bounds of the pool that were ordered during a reload are lost",
        *("reloads", "was ordered", Reload, "scaled", _nothing, 4),
    ),
}
"""By name. The simulation has found the last five itself."""
