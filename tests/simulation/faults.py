"""Faults that linepool once had, put back: the simulation must find each of them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

from attrs import evolve, frozen

from linepool.ipc import channel
from linepool.ipc.board import MasterSlot, Order, WorkerView
from linepool.ipc.board.words import HEARD, LIMIT_NS, OVERDUE
from linepool.ipc.messages import WorkerStarted
from linepool.kernel.event_set import EventSet
from linepool.master.generation import Generation
from linepool.master.master import Master
from linepool.master.parker_handle import ParkerHandle
from linepool.master.reload import Reload
from linepool.master.takeover import Inherited
from linepool.parker.delivery import Delivery
from linepool.parker.parker import Parker
from linepool.worker.loop import Loop
from tests.simulation.calls import os
from tests.simulation.machine import here


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


def _tell_of_workers(self: Any, now: float) -> None:
    self._unheard = {
        slot: tell_at
        for slot, tell_at in self._unheard.items()
        if slot in self._workers and not self._has_heard(slot)
    }
    for slot, tell_at in self._unheard.items():
        if self._helper.channel is not None and now >= tell_at and not self._messages:
            self._unheard[slot] = now + 0.25
            channel_copy = os.dup(self._workers[slot].channel.fileno())
            self._messages.append(WorkerStarted(slot, channel_copy))


def _ends(self: Any) -> bool:
    if not self._stop_by or self._parked or self._lingering or self._acceptor.listeners:
        return False
    return bool(self._delivery.is_settled)


def _act_at(self: Any) -> float:
    due: float = _REAL_ACT_AT(self)
    if self.upgrade.is_near:
        parts = self._parts
        due = min(due, parts.recycler.due_at, parts.withheld.due_at, self._plan_at or due)
    return due


def _is_done(self: Any) -> bool:
    if not self._table.is_empty or self._acceptor.listeners:
        return False
    return self._orders.order != Order.STOP or not self._board.has_parker


def _watch_listeners(self: Any, wanted: bool) -> None:
    if wanted or not self.upgrade.is_near:
        _REAL_WATCH_LISTENERS(self, wanted)


_REAL_ACT_AT = Master._act_at
_REAL_WATCH_LISTENERS = Master._watch_listeners


def _generations(self: Any) -> list[Generation]:
    found: list[Any] = _REAL_GENERATIONS(self)
    return [evolve(one, settings=one.loader.settings) for one in found]


_REAL_GENERATIONS = Inherited.generations


def _due_at(self: Any) -> float:
    if self._messages:
        return here().kernel.now_ns / 1e9
    due: float = _REAL_DUE_AT(self)
    return due


_REAL_DUE_AT: Any = vars(ParkerHandle)["due_at"].fget


def _hear_worker(self: Any, worker: Any) -> None:
    with contextlib.suppress(EOFError):
        while self._has_room() and (message := self._message_from(worker)):
            self._obey(worker, message)


def _nothing(*_: object) -> None:
    pass


FAULTS = {
    "number": Fault(
        "an event is matched by the number of its descriptor",
        *("moves", "without a cause", EventSet, "wait", _wait, 337),
    ),
    "reset": Fault(
        "what a worker has sent before it died is thrown away if the kernel reports a reset first",
        *("deaths", "is lost on its way", channel, "_next_message", _next_message, 350),
    ),
    "serial": Fault(
        "RequestTimeout is raised in whatever request is in flight, without its serial number",
        *(
            "limits",
            "which is not overdue",
            WorkerView,
            "overdue_limit_ns",
            property(_overdue),
            219,
        ),
    ),
    "settled": Fault(
        "the parker ends in a stop with a connection unread that a worker has handed off",
        *("stop", "is lost on its way", Delivery, "is_settled", property(_is_settled), 1),
    ),
    "heard": Fault(
        "a worker counts as known to the parker because the one before it in its slot is",
        *("moves", "waits for ever", MasterSlot, "is_heard", _is_heard, 625),
    ),
    "reply": Fault(
        "the connection of a killed worker is ended, though its request has just ended and another has it",
        *("kills", "without a cause", MasterSlot, "serves", _serves, 30),
    ),
    "rolling": Fault(
        "a reload waits without end for workers of a loader that has died meanwhile",
        *("reloads", "a reload does not end", Reload, "_break_off", _nothing, 39),
    ),
    "bounds": Fault(
        "the bounds of the pool that were ordered during a reload are lost",
        *("reloads", "was ordered", Reload, "scaled", _nothing, 12),
    ),
    "told": Fault(
        "a new worker is told of after what has no room at the parker, and dies before that",
        *(
            "moves",
            "is lost on its way",
            ParkerHandle,
            "_tell_of_workers",
            _tell_of_workers,
            1_000_702,
        ),
    ),
    "saved": Fault(
        "in a stop the parker ends with a connection unread that the master has saved of a dead worker",
        *("stop", "is lost on its way", Parker, "_is_done", _ends, 11_277),
    ),
    "near": Fault(
        "the master does not sleep while an upgrade waits until nothing is under way",
        *("upgrades", "spins", Master, "_act_at", _act_at, 1_045),
    ),
    "stays": Fault(
        "in a stop a worker waits for a parker that was killed, as was the master",
        *("orphans", "is left", Loop, "_is_done", _is_done, 1_030),
    ),
    "watch": Fault(
        "the master goes on watching for clients while an upgrade waits until nothing is under way",
        *("upgrades", "spins", Master, "_watch_listeners", _watch_listeners, 910_003_620),
    ),
    "taken": Fault(
        "the bounds of the pool that were ordered are lost in an upgrade",
        *("upgrades", "was ordered", Inherited, "generations", _generations, 24),
    ),
    "full": Fault(
        "the master tries again at once what the parker has no room for",
        *("deaths", "spins", ParkerHandle, "due_at", property(_due_at), 42),
    ),
    "end": Fault(
        "the parker goes on listening to a worker whose end of the channel is closed",
        *("deaths", "spins", Parker, "_hear_worker", _hear_worker, 14),
    ),
}
"""By name. Those from ``settled`` to ``watch`` the simulation has found itself."""
