"""The delivery of connections to workers, in two phases.

Runs in the parker. It sends the descriptor to one idle worker, see ``deliver``, and keeps its own copy until
the worker has begun to serve it, which the board says. If that worker dies first, as the master says when it
has reaped it, the connection goes to another. No clock is used for that, so no connection is lost that a
worker has not begun to serve, and none is begun twice.
"""

from __future__ import annotations

import os
import socket
import time
from collections import deque

from attrs import define

from linepool.errors import TOO_MANY, TOO_MANY_FROM_ONE
from linepool.ipc import channel as channels
from linepool.ipc.board import ParkerView
from linepool.ipc.messages import ConnectionState, PassedConnection
from linepool.kernel.sockets import socket_cookie, unread_bytes
from linepool.parker.held import Held
from linepool.settings import Settings

_WAKE_EVERY_NS = 10_000_000  # between two wake-ups of the master, which may spawn a worker
_AT_ONCE = 16  # connections for one request of a worker: one of them may hold up the others


@define
class _Given:
    """A connection that was given to a worker, until the worker has begun to serve it."""

    number: int
    descriptor: int
    state: ConnectionState


class WorkerProxy:
    """What the parker knows of a worker.

    Attributes:
        slot: The worker's.
        channel: The parker's end of its channel.
        board: The worker's slot on the board.
        given: Connections that it may not have begun to serve, in their order.
        woken: By their numbers, the topics of requests that it was given because they were woken, and of
            which it has not said how that ended.
        passed: The cookie of the last connection that it has passed; 0: none, or it is there again.
        taken_back: Cookies of those that it was given and had not begun to serve when it died.
    """

    def __init__(self, slot: int, channel: socket.socket, board: ParkerView) -> None:
        self.slot = slot
        self.channel = channel
        self.board = board.slot(slot, socket_cookie(channel))
        self.given: deque[_Given] = deque()
        self.woken: dict[int, list[bytes]] = {}
        self.passed = 0
        self.taken_back: list[int] = []

    def has_left(self, cookie: int) -> bool:
        """Whether a connection that it held when it died is with the parker, or was passed on by it.

        Of those that it had passed only the last can still have been open there.
        """
        return cookie == self.passed or cookie in self.taken_back

    def idle_since_ns(self, *, leaving_too: bool) -> int:
        """Return when it began to wait for work; 0: it does not, was given some, or leaves."""
        board = self.board
        if self.given and self.given[-1].number > board.begun_with:
            return 0
        return board.idle_since_ns if leaving_too or not board.is_leaving else 0

    @property
    def unstarted(self) -> int:
        """How many connections it has been given and has not begun to serve."""
        begun_with = self.board.begun_with
        return sum(given.number > begun_with for given in self.given)

    def give(self, descriptor: int, state: ConnectionState) -> bool:
        """Send it a connection; return whether it is on its way."""
        number = self.board.next_gift()
        if not channels.send(self.channel, PassedConnection(state, descriptor, number)):
            return False
        self.given.append(_Given(number, descriptor, state))
        if state.cookie == self.passed:
            self.passed = 0  # it is there again
        self.board.unstarted(len(self.given))
        if topics := [one.topic for one in state.waiting if one.topic]:
            self.woken[number] = topics
        return True

    def settle(self, number: int) -> None:
        """Note that the request of a connection has used what it was woken for, by the gift's number."""
        self.woken.pop(number, None)

    def confirm(self, *, heard: bool) -> None:
        """Close the parker's copies of the connections that it has begun to serve.

        Args:
            heard: Its messages are read. One that waits may return a connection with a lower number
                than that of the last one begun, so nothing is closed before that is read.
        """
        if not self.given:
            return
        begun_with = self.board.begun_with  # before the look for messages: they were sent before it
        if heard and unread_bytes(self.channel.fileno()):
            return
        while self.given and self.given[0].number <= begun_with:
            os.close(self.given.popleft().descriptor)
        self.board.unstarted(len(self.given))


class Delivery:
    """The connections that wait for a worker, and the workers.

    Attributes:
        workers: By slot.
        held: The account of all connections that the parker holds.
    """

    def __init__(self, board: ParkerView) -> None:
        self.held = Held(board)
        self.workers: dict[int, WorkerProxy] = {}
        self._board = board
        self._waiting: deque[tuple[int, ConnectionState, int]] = deque()  # ... since when, in ns
        self._woken_ns = 0

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def waits_since_ns(self) -> int:
        """Since when the first connection waits. Pre-condition: there is one."""
        return self._waiting[0][2]

    @property
    def given(self) -> int:
        """How many connections were given to workers that may not have begun to serve them."""
        return sum(len(worker.given) for worker in self.workers.values())

    @property
    def is_settled(self) -> bool:
        """Whether no connection waits, and no worker may hand one off any more, or has."""
        if self._waiting or self.given or self._board.held_by_workers():
            return False
        # After that look: a worker counts a connection until it has sent it.
        return not any(unread_bytes(worker.channel.fileno()) for worker in self.workers.values())

    def publish(self, parked: int) -> bool:
        """Publish what is held, and since when the first connection waits; return whether to wake the master.

        Args:
            parked: How many connections are parked.
        """
        self._board.holds(parked + len(self))
        if not self._waiting:
            return False
        since_ns = self.waits_since_ns
        self._board.ready_since(since_ns)
        now_ns = time.monotonic_ns()
        is_due = now_ns - max(since_ns, self._woken_ns) > _WAKE_EVERY_NS
        if is_due:
            self._woken_ns = now_ns
        return is_due

    def refusal(self, parked: int, origin: int, settings: Settings) -> str:
        """Return why a new client is refused; "": it is not.

        Args:
            parked: How many connections are parked.
            origin: Where the client comes from.
            settings: Have the limits.
        """
        held = parked + len(self) + self._board.held_by_workers()
        held += sum(worker.unstarted for worker in self.workers.values())
        if held >= settings.max_connections:
            return TOO_MANY
        most = settings.address_limit
        if origin and held >= most and self._board.connections_from(origin) >= most:
            return TOO_MANY_FROM_ONE
        return ""

    def add_worker(self, slot: int, channel: socket.socket) -> WorkerProxy:
        """Note a new worker."""
        self.workers[slot] = worker = WorkerProxy(slot, channel, self._board)
        return worker

    def remove_worker(self, worker: WorkerProxy, begun_with: int) -> list[bytes]:
        """Take back what a dead worker was given and has not begun to serve.

        Args:
            worker: The worker.
            begun_with: The number of the last connection that it had begun to serve.

        Returns:
            The topics of the requests that were woken and had begun, and of whose end it has not told.
        """
        del self.workers[worker.slot]
        worker.channel.close()
        is_valid = worker.board.may_have_begun(begun_with)
        for given in reversed(worker.given):
            if is_valid and given.number > begun_with:
                worker.settle(given.number)
                worker.taken_back.append(given.state.cookie)
                self.queue(given.descriptor, given.state, first=True)
            else:  # it was begun, or nothing is known: then it must not be begun twice
                os.close(given.descriptor)
        return [topic for topics in worker.woken.values() for topic in topics]

    def queue(self, descriptor: int, state: ConnectionState, *, first: bool = False) -> None:
        """Have a connection wait for a worker: behind the others, or ahead of them."""
        if first:  # it was given to a worker, and is back
            self.held.add(state)
        entry = (descriptor, state, time.monotonic_ns())
        (self._waiting.appendleft if first else self._waiting.append)(entry)
        # Before any worker is looked for: one that becomes idle just after the look sees it and asks.
        self._board.ready_connections(len(self._waiting))

    def deliver(self, *, leaving_too: bool) -> None:
        """Give waiting connections to idle workers: to the most recently idle one.

        A new one is given to the worker that holds the fewest: with TLS it will stay there.
        """
        tried: set[int] = set()
        while self._waiting:
            is_new = self._waiting[0][1].flags & channels.NEW
            idle = [
                (-worker.board.held if is_new else 0, since_ns, worker.slot)
                for worker in self.workers.values()
                if (since_ns := worker.idle_since_ns(leaving_too=leaving_too))
                and worker.slot not in tried
            ]
            if not idle:
                return
            slot = max(idle)[2]
            if not self._give(self.workers[slot]):
                tried.add(slot)

    def give_share(self, worker: WorkerProxy) -> None:
        """Give a worker that wants work its share of the waiting connections."""
        share = len(self._waiting) // max(1, len(self.workers)) + 1
        for _ in range(min(share, _AT_ONCE - worker.unstarted, len(self._waiting))):
            self._give(worker)

    def take_back(self, worker: WorkerProxy, number: int) -> None:
        """Have a connection wait again that a worker has returned."""
        for given in list(worker.given):
            if given.number == number:
                worker.settle(number)
                worker.given.remove(given)
                self.queue(given.descriptor, given.state, first=True)

    def confirm(self, *, heard: bool) -> None:
        """Close the parker's copies of all connections that workers have begun to serve."""
        for worker in self.workers.values():
            worker.confirm(heard=heard)

    def _give(self, worker: WorkerProxy) -> bool:
        """Give the connection that waits longest to a worker; return whether it is on its way."""
        descriptor, state, _ = self._waiting[0]
        if not worker.give(descriptor, state):
            return False
        self._waiting.popleft()
        self.held.remove(state)
        self._board.ready_connections(len(self._waiting))
        return True
