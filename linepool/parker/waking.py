"""Wakes requests that wait: those of the connections that are parked here, and those that stay in workers.

A wake-up is used by the request that it was given to, or else passed on to the next one of its topic: if the
run ends in anything but a reply, the worker says so, and if the worker dies meanwhile, it is passed on here.
What a dead worker had changed without telling anybody wakes all: each looks for itself.
"""

from __future__ import annotations

import heapq
import math
import time
from collections.abc import Callable, Hashable, Iterable, Sequence

from attrs import frozen

from linepool.ipc import channel as channels
from linepool.ipc.board import ParkerView
from linepool.ipc.messages import ConnectionState, Waits
from linepool.ipc.waiting import Waiting, Wakes, Why, unpacked
from linepool.parker.delivery import Delivery, WorkerProxy
from linepool.parker.waiters import Waiters

_SHOW_EVERY = 0.25  # seconds between two lists of the topics
_RETRY = 0.005  # seconds, where a worker's channel is full
_AT_ONCE = 64  # connections that wait for a worker, before further woken ones join them

Woken = Iterable[tuple[Hashable, Waiting]]


@frozen
class _Beside:
    """The key of a request that others of its connection may overtake."""

    descriptor: int
    number: int


@frozen
class _There:
    """The key of a request whose connection stays in its worker."""

    slot: int
    number: int


def _is_in(key: Hashable, worker: WorkerProxy) -> bool:
    return isinstance(key, _There) and key.slot == worker.slot


def _key(descriptor: int, number: int, waiting: Waiting) -> int | _Beside:
    return _Beside(descriptor, number) if waiting.request else descriptor


class Waking:
    """The requests that wait.

    Args:
        board: Where their number is published.
        delivery: Gives those that are to be run again to workers.
        unpark: Takes a connection out of those that are parked, given its descriptor.
    """

    def __init__(
        self, board: ParkerView, delivery: Delivery, unpark: Callable[[int], ConnectionState]
    ) -> None:
        self._board = board
        self._delivery = delivery
        self._unpark = unpark
        # What was on its way to another parker may have been a wake-up.
        self._table = Waiters(board.wakes + 1)
        board.wakes = self._table.version
        self._deadlines: list[tuple[float, int, Hashable, Waiting]] = []  # some are out of date
        self._entries = 0
        self._woken: dict[Hashable, Waiting] = {}  # in the order in which they are to be run
        self._beside: dict[int, list[_Beside]] = {}  # by the descriptor of the connection
        self._unsent: list[tuple[WorkerProxy, Waits]] = []
        self._show_at = math.inf
        self._shown_at = 0.0
        self._is_stopping = False

    def holds_up(self, descriptor: int) -> bool:
        """Whether a request waits at a parked connection behind which all others wait."""
        return descriptor in self._table or descriptor in self._woken

    @property
    def due(self) -> float:
        """When ``look`` is to be called; monotonic, in seconds."""
        due = min(self._show_at, self._deadlines[0][0] if self._deadlines else math.inf)
        return time.monotonic() + _RETRY if self._unsent or self._woken else due

    def wait(self, worker: WorkerProxy, descriptor: int, some: Sequence[Waiting]) -> bool:
        """Have the requests of a passed connection wait; return False if one is to be run at once.

        Args:
            worker: That has run their handlers.
            descriptor: Of the connection.
            some: What is known of them.
        """
        keys = [_key(descriptor, number, one) for number, one in enumerate(some)]
        waits = [self._add(worker, key, one) for key, one in zip(keys, some, strict=True)]
        if all(waits):
            if isinstance(keys[0], _Beside):
                self._beside[descriptor] = [key for key in keys if isinstance(key, _Beside)]
            return True
        for key in keys:
            self._table.pop(key)
        return False

    def end(self, descriptor: int, state: ConnectionState) -> bytes:
        """Have the requests of a connection wait no more: its client has left.

        Returns what it is sent if it still reads.
        """
        if self.holds_up(descriptor):
            return self.forget(descriptor)
        self.taken(descriptor)
        for one in state.waiting:
            self._pass_on(one)
        return b"".join(one.reply for one in state.waiting)

    def _pass_on(self, waiting: Waiting) -> None:
        if waiting.why == Why.WOKEN and waiting.topic:
            self.wake(waiting.topic, 1)

    def taken(self, descriptor: int) -> None:
        """Have the requests that others may overtake leave the parker with their connection."""
        keys = self._beside.pop(descriptor, ())
        for key in keys:
            if self._woken.pop(key, None) is None:
                self._table.pop(key)
        if keys:
            self._show(time.monotonic())

    def waits_there(self, worker: WorkerProxy, message: Waits) -> None:
        """Have a request wait whose connection stays in its worker."""
        waiting = unpacked(message.waiting)
        key = _There(worker.slot, message.number)
        self._table.pop(key)
        self._woken.pop(key, None)
        if not self._add(worker, key, waiting):
            self._run([(key, waiting)])

    def _add(self, worker: WorkerProxy, key: Hashable, waiting: Waiting) -> bool:
        """Have a request wait; return False, with the reason noted, if it is to be run at once.

        Args:
            worker: That has run its handler.
            key: The descriptor of its connection; of one that stays in its worker, slot and number.
            waiting: What is known of it.
        """
        worker.settle(waiting.settles)
        now_ns = time.monotonic_ns()
        if self._is_stopping:
            waiting.why = Why.STOPPING
            return False
        waits = self._table.add(key, waiting, now_ns)
        if waits:
            self._entries += 1
            if waiting.deadline < math.inf:
                entry = (waiting.deadline, self._entries, key, waiting)
                heapq.heappush(self._deadlines, entry)
                if len(self._deadlines) > 2 * len(self._table) + 64:
                    self._deadlines = [one for one in self._deadlines if self._is_current(one)]
                    heapq.heapify(self._deadlines)
            self._show(now_ns / 1e9)
        return waits

    def _is_current(self, entry: tuple[float, int, Hashable, Waiting]) -> bool:
        return self._table.get(entry[2]) is entry[3]

    def forget(self, key: Hashable) -> bytes:
        """Have a request wait no more: its client has left; return what it is sent if it still reads."""
        waiting = self._woken.pop(key, None) or self._table.pop(key)
        if waiting is not None:
            self._pass_on(waiting)
        self._show(time.monotonic())
        return waiting.reply if waiting is not None else b""

    def hear(self, worker: WorkerProxy, wakes: Wakes) -> None:
        """Do what a worker says of wake-ups."""
        for number in wakes.left:
            self.forget(_There(worker.slot, number))
        for number in wakes.settled:
            worker.settle(number)
        for topic, count in wakes.topics.items():
            self.wake(topic, count)

    def wake(self, topic: bytes, count: int) -> None:
        """Wake requests that wait for a topic; ``ALL``: all of them."""
        self._run(self._table.wake(topic, count))
        self._board.wakes = self._table.version

    def wake_all(self) -> None:
        """Have all requests run again, each of which looks for itself."""
        self._run(self._table.end(Why.WOKEN))
        self._board.wakes = self._table.version

    def stop(self) -> None:
        """Have all requests run for the last time: the server stops."""
        self._is_stopping = True
        self._run(self._table.end(Why.STOPPING))

    def lost(self, worker: WorkerProxy, topics: Iterable[bytes], *, was_busy: bool) -> None:
        """Pass on what a dead worker has not used, and forget the requests that waited in it.

        Args:
            worker: The worker.
            topics: Those of the wake-ups that it was given and had begun with.
            was_busy: It was at work when it died.
        """
        self._table.pop_all(lambda key: _is_in(key, worker))
        self._woken = {
            key: waiting for key, waiting in self._woken.items() if not _is_in(key, worker)
        }
        self._unsent = [one for one in self._unsent if one[0] is not worker]
        if was_busy and self._table:
            self.wake_all()
            return
        for topic in topics:
            self.wake(topic, 1)

    def look(self, now: float) -> None:
        """Run the requests again whose time is up, and show what the others wait for."""
        expired = []
        while self._deadlines and self._deadlines[0][0] <= now:
            entry = heapq.heappop(self._deadlines)
            if self._is_current(entry):
                self._table.pop(entry[2])
                entry[3].why = Why.EXPIRED
                expired.append((entry[2], entry[3]))
        self._run(expired)
        self._pump()
        if self._unsent:
            unsent, self._unsent = self._unsent, []
            self._send(unsent)
        if now >= self._show_at:
            self._show_at, self._shown_at = math.inf, now
            self._board.awaited(self._table.longest(ParkerView.most_awaited))

    def _run(self, woken: Woken) -> None:
        """Have workers run requests again."""
        self._woken.update(woken)
        self._pump()
        self._show(time.monotonic())

    def _pump(self) -> None:
        """Have the next ones wait for a worker: not so many that others wait long, or the pool grows."""
        while self._woken and len(self._delivery) < _AT_ONCE:
            key = next(iter(self._woken))
            waiting = self._woken.pop(key)
            if isinstance(key, int):
                self._delivery.queue(key, self._unpark(key))
            elif isinstance(key, _Beside):
                self._woken[key] = waiting
                state = self._unpark(key.descriptor)
                self.taken(key.descriptor)
                self._delivery.queue(key.descriptor, state)
            elif isinstance(key, _There) and (worker := self._delivery.workers.get(key.slot)):
                self._send([(worker, Waits(key.number, waiting.packed()))])

    def _send(self, messages: list[tuple[WorkerProxy, Waits]]) -> None:
        for worker, message in messages:
            if not channels.send(worker.channel, message):
                self._unsent.append((worker, message))

    def _show(self, now: float) -> None:
        """Publish how many wait, and soon what for."""
        self._board.waiters(len(self._table))
        if self._show_at == math.inf:
            self._show_at = max(now, self._shown_at + _SHOW_EVERY)
