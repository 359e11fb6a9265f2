"""The parker: holds the connections that no worker has, and gives who speaks to a free worker.

Runs in a process of its own, forked by the master. It runs no code of the app's and never reads what
a client has sent. What it does not understand of a connection (the session, the protocol's state) it
keeps as bytes.

A connection is given in two phases. The parker sends the descriptor to one worker, the one that has
become idle last, and keeps its own copy until the worker has begun with it, which the board shows. If
that worker dies first, as the master says when it has reaped it, the connection goes to another. No
clock is asked, so no request is lost unread, and none is begun twice.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import heapq
import itertools
import logging
import math
import os
import resource
import select
import socket
import struct
import termios
import time
from collections import deque

from attrs import define, frozen

from linepool.ipc import channel as passing
from linepool.ipc.board import (
    BEGUN_WITH,
    FREE_NS,
    GIVEN,
    HELD,
    ORDER,
    PARKED,
    PARKER,
    PARKER_FULL,
    TURNED_AWAY,
    UNSTARTED,
    WAITING,
    WAITS_SINCE_NS,
    Board,
)
from linepool.ipc.channel import BELL, Baggage, Kind, Message
from linepool.kernel.acceptor import Doors
from linepool.kernel.lingering import LONGEST, PATIENCE, Closing, last_call
from linepool.kernel.listeners import Listener, as_connection, show
from linepool.session import Session
from linepool.settings import Settings

log = logging.getLogger("linepool")

_STEP = 0.01  # seconds between two looks whether given connections were begun with
_GLANCE = 0.005  # seconds between two looks who is free while somebody waits
_MESSAGES = 8  # from one worker, before those who have said something get their turn
_AT_ONCE = 16  # connections for one question of a worker: one of them may hold up the others
_SPARE_FILES = 32  # descriptors that are kept for other things than connections
_BELL_EVERY_NS = 10_000_000  # between two calls for the master, who may spawn a worker
_INT = struct.Struct("i")


@frozen
class Manners:
    """What the parker must know of the app.

    Attributes:
        busy: What a client is told when there are too many.
        greets: A new client is greeted, before it has said anything.
        mourns: There are hooks for the end of a connection, to be run by a worker.
    """

    busy: bytes
    greets: bool
    mourns: bool


@define
class _Given:
    """A connection that was given to a worker, until it has begun with it."""

    number: int
    descriptor: int
    baggage: Baggage


class _Colleague:
    """What the parker knows of a worker."""

    def __init__(self, slot: int, channel: socket.socket, board: Board) -> None:
        self.slot = slot
        self.channel = channel
        self.words = board.slots[slot].words
        self.words[UNSTARTED] = 0
        self.given: deque[_Given] = deque()

    def free_ns(self, *, leaving_too: bool) -> int:
        """Return since when it waits for work; 0: it does not, or has been given some, or leaves."""
        if self.given and not self.has_begun(self.given[-1]):
            return 0
        return self.words[FREE_NS] if leaving_too or not self.words[ORDER] else 0

    @property
    def unstarted(self) -> int:
        """How many connections it has been given and has not begun with."""
        return sum(not self.has_begun(given) for given in self.given)

    def has_begun(self, given: _Given) -> bool:
        """Whether it has begun with what it was given."""
        return given.number <= self.words[BEGUN_WITH]

    def give(self, descriptor: int, baggage: Baggage) -> bool:
        """Give it a connection; return whether it is on its way."""
        number = self.words[GIVEN] + 1
        self.words[GIVEN] = number
        if not passing.send(self.channel, Kind.CONNECTION, number, baggage, (descriptor,)):
            return False
        self.given.append(_Given(number, descriptor, baggage))
        self.words[UNSTARTED] += 1
        return True


class Parker:
    """The parker.

    Args:
        board: Where it sees who is free, and shows who waits.
        hub: The parker's end of its channel to the master.
        channels: Those of the workers that are there already, by slot.
        listeners: Where it accepts, in the scheme ``dispatch``.
    """

    def __init__(
        self,
        board: Board,
        hub: socket.socket,
        channels: dict[int, socket.socket],
        listeners: list[Listener],
        settings: Settings,
        manners: Manners,
    ) -> None:
        self._board = board
        self._head = board.head
        self._hub = hub
        self._settings = settings
        self._manners = manners
        self._parked: dict[int, Baggage] = {}
        self._deadlines: list[tuple[float, int]] = []  # a heap; some are out of date
        self._waiting: deque[tuple[int, Baggage, int]] = deque()  # ... since when, in ns
        self._colleagues: dict[int, _Colleague] = {}
        self._channels: dict[int, _Colleague] = {}  # by the descriptor of the channel
        self._closing = Closing()
        self._is_deaf = False  # to the workers, for there is no room for what they hand on
        self._rung_ns = 0
        self._stop_by = 0.0  # when it ends though clients go on; 0: it is not to end
        self._stopped_at = 0.0
        self._numbers = itertools.count(1)
        self._most = 0  # descriptors that connections and channels may take
        self._epoll = select.epoll()
        self._epoll.register(hub, select.EPOLLIN)
        for slot, channel in channels.items():
            self._hire(slot, channel)
        self._mind_the_room()
        self._doors = Doors(listeners, self._epoll, select.EPOLLIN)

    def run(self) -> None:
        """Hold connections until the master says that it is time to end, or is gone."""
        gc.disable()  # there is nothing here that a collection would find, and much to look at
        with contextlib.suppress(EOFError):
            while not self._is_done():
                for descriptor, event in self._epoll.poll(self._pause()):
                    self._hear(descriptor, event)
                self._close_expired()
                self._mind_the_room()  # before anybody is given what he may hand on again
                self._serve_waiting()
                self._look_who_has_begun()
                self._tell()
        self._head[PARKER] = 0

    # Hearing.

    def _hear(self, descriptor: int, event: int) -> None:
        if descriptor in self._parked:
            self._wake(descriptor, event)
        elif descriptor == self._hub.fileno():
            self._hear_master()
        elif descriptor in self._doors.listeners:
            self._accept(self._doors.listeners[descriptor])
        elif descriptor in self._channels:
            self._hear_worker(self._channels[descriptor])
        elif descriptor in self._closing and self._closing.has_heard(descriptor):
            self._finish(descriptor)

    def _hear_master(self) -> None:
        while message := passing.receive(self._hub):
            if message.kind is Kind.HIRED and message.descriptors:
                self._hire(message.number, passing.end_of(message.descriptors[0]))
            elif message.kind is Kind.DEAD:
                self._bury(message.number, int(message.baggage.state))
            elif message.kind is Kind.CONNECTION and message.descriptors:
                self._park(message.descriptors[0], message.baggage)
            elif message.kind is Kind.STOP:
                self._stop()

    def _stop(self) -> None:
        """Begin to end; who is in the kernel's queue thinks that he is connected, so he is taken."""
        if not self._doors.open_at:
            for listener in self._doors.listeners.values():
                for _ in range(listener.queue()[0]):
                    self._accept(listener)
        self._doors.shut(math.inf)
        self._stopped_at = time.monotonic()
        self._stop_by = self._stopped_at + PATIENCE

    def _hear_worker(self, colleague: _Colleague) -> None:
        try:
            for _ in range(_MESSAGES):
                if not self._has_room():
                    return  # the worker keeps them meanwhile
                message = passing.receive(colleague.channel)
                if message is None:
                    return
                self._obey(colleague, message)
        except EOFError:  # it is dying; the master will say when it is dead
            self._unhear(colleague)

    def _unhear(self, colleague: _Colleague) -> None:
        if self._channels.pop(colleague.channel.fileno(), None):
            self._epoll.unregister(colleague.channel)

    def _mind_the_room(self) -> None:
        """Tell the workers when there is little room left; listen to none when there is no more.

        What they have handed on by then is not theirs any more, so there must be room to give it back.
        """
        self._most = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - _SPARE_FILES
        margin = min(self._most // 4, _MESSAGES * (len(self._colleagues) + 1))
        self._head[PARKER_FULL] = not self._has_room(margin)
        if self._is_deaf == self._has_room():
            self._is_deaf = not self._is_deaf
            for descriptor in self._channels:
                self._epoll.modify(descriptor, 0 if self._is_deaf else select.EPOLLIN)

    def _obey(self, colleague: _Colleague, message: Message) -> None:
        """Do what a worker asks for."""
        if message.kind is Kind.CONNECTION:
            if message.descriptors:
                self._park(message.descriptors[0], message.baggage)
            else:
                log.error("a connection is lost: the parker has no descriptor left for it")
        elif message.kind is Kind.FREE:
            share = len(self._waiting) // max(1, len(self._colleagues)) + 1
            for _ in range(min(share, _AT_ONCE - colleague.unstarted, len(self._waiting))):
                self._give(colleague)
        elif message.kind is Kind.BACK:
            for given in list(colleague.given):
                if given.number == message.number:
                    colleague.given.remove(given)
                    self._wait(given.descriptor, given.baggage, first=True)

    def _hire(self, slot: int, channel: socket.socket) -> None:
        self._colleagues[slot] = colleague = _Colleague(slot, channel, self._board)
        self._channels[channel.fileno()] = colleague
        self._epoll.register(channel, 0 if self._is_deaf else select.EPOLLIN)

    def _bury(self, slot: int, begun: int) -> None:
        """Take back from a dead worker what it had not begun with."""
        colleague = self._colleagues.pop(slot, None)
        if colleague is None:
            return
        with contextlib.suppress(EOFError):
            while message := passing.receive(colleague.channel):  # its last words
                self._obey(colleague, message)
        self._unhear(colleague)
        colleague.channel.close()
        for given in reversed(colleague.given):
            if given.number > begun:
                self._wait(given.descriptor, given.baggage, first=True)
            else:
                os.close(given.descriptor)

    # Connections.

    def _park(self, descriptor: int, baggage: Baggage) -> None:
        """Hold a connection until its client says something; without room, pass it on as it is."""
        if baggage.traits & passing.MORE or self._head[PARKER_FULL]:
            self._wait(descriptor, baggage)
            return
        self._parked[descriptor] = baggage
        self._epoll.register(descriptor, select.EPOLLIN | select.EPOLLRDHUP)
        heapq.heappush(self._deadlines, (baggage.deadline, descriptor))
        if len(self._deadlines) > 2 * len(self._parked) + 64:
            self._deadlines = [(one.deadline, fd) for fd, one in self._parked.items()]
            heapq.heapify(self._deadlines)

    def _unpark(self, descriptor: int) -> Baggage:
        # Not left to the close: the worker's copy would keep it in the kernel's list (epoll(7)).
        self._epoll.unregister(descriptor)
        return self._parked.pop(descriptor)

    def _wake(self, descriptor: int, event: int) -> None:
        """Have a worker serve a client that has said something; forget one that has gone."""
        baggage = self._unpark(descriptor)
        gone = event & (select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR)
        if gone and not _readable(descriptor) and not self._needs_worker(baggage):
            os.close(descriptor)
        else:
            self._wait(descriptor, baggage)

    def _needs_worker(self, baggage: Baggage) -> bool:
        """Whether there is more to do at the end of a connection than to close it."""
        return self._manners.mourns or bool(baggage.traits & passing.PARTIAL)

    def _wait(self, descriptor: int, baggage: Baggage, *, first: bool = False) -> None:
        """Put a connection into the queue for the workers, or back to its head."""
        entry = (descriptor, baggage, time.monotonic_ns())
        (self._waiting.appendleft if first else self._waiting.append)(entry)
        # Before anybody is looked for: who becomes idle just after the look sees it and asks.
        self._head[WAITING] = len(self._waiting)

    def _serve_waiting(self) -> None:
        """Give who waits to those who are free, the one that has become so last first."""
        tried: set[int] = set()
        while self._waiting:
            free = [
                (since_ns, colleague.slot)
                for colleague in self._colleagues.values()
                if (since_ns := colleague.free_ns(leaving_too=bool(self._stop_by)))
                and colleague.slot not in tried
            ]
            if not free:
                return
            slot = max(free)[1]
            if not self._give(self._colleagues[slot]):
                tried.add(slot)

    def _give(self, colleague: _Colleague) -> bool:
        """Give the connection that waits longest to a worker; return whether it is on its way."""
        descriptor, baggage, _ = self._waiting[0]
        if not colleague.give(descriptor, baggage):
            return False
        self._waiting.popleft()
        self._head[WAITING] = len(self._waiting)
        return True

    def _look_who_has_begun(self) -> None:
        for colleague in self._colleagues.values():
            given = colleague.given
            if not given:
                continue
            while given and colleague.has_begun(given[0]):
                os.close(given.popleft().descriptor)
            colleague.words[UNSTARTED] = len(given)

    # Time.

    def _pause(self) -> float | None:
        """Return for how many seconds nothing is to be done."""
        moments = [self._closing.due]
        now = time.monotonic()
        if self._deadlines:
            moments.append(self._deadlines[0][0])
        if self._doors.open_at:
            moments.append(self._doors.open_at)
        if self._waiting:
            moments.append(now + _GLANCE)
        if (
            self._stop_by
            or self._head[PARKER_FULL]
            or any(one.given for one in self._colleagues.values())
        ):
            moments.append(now + _STEP)
        due = min(moments)
        return None if due == math.inf else min(max(0.0, due - now), LONGEST)

    def _close_expired(self) -> None:
        now = time.monotonic()
        while self._deadlines and self._deadlines[0][0] <= now:
            deadline, descriptor = heapq.heappop(self._deadlines)
            baggage = self._parked.get(descriptor)
            if baggage is None or baggage.deadline != deadline:
                continue
            self._unpark(descriptor)
            if self._needs_worker(baggage):
                baggage.traits |= passing.EXPIRED
                self._wait(descriptor, baggage)
            else:
                self._close(descriptor)
        if self._stop_by:
            self._close_quiet(now)
        for descriptor in self._closing.look_at_the_clock(now):
            self._finish(descriptor)
        self._doors.look_at_the_clock(now)

    def _close_quiet(self, now: float) -> None:
        """Before the end, close those whose clients have nothing more to say."""
        for descriptor, baggage in list(self._parked.items()):
            served = bool(baggage.traits & passing.SERVED)
            at_boundary = not baggage.traits & passing.PARTIAL
            until = last_call(
                self._stopped_at,
                self._stop_by,
                baggage.since,
                served=served,
                at_boundary=at_boundary,
            )
            if now >= until:
                self._unpark(descriptor)
                if self._manners.mourns:
                    baggage.traits = baggage.traits & ~passing.PARTIAL | passing.EXPIRED
                    self._wait(descriptor, baggage)
                else:
                    self._close(descriptor)

    def _close(self, descriptor: int) -> None:
        """End a connection by our side."""
        sock = as_connection(descriptor)
        if self._closing.add(sock, patient=False):
            self._epoll.register(descriptor, select.EPOLLIN)

    def _finish(self, descriptor: int) -> None:
        self._epoll.unregister(descriptor)
        self._closing.close(descriptor)

    def _is_done(self) -> bool:
        if not self._stop_by:
            return False
        if self._parked or self._waiting or self._closing:
            return False
        # A worker that is held up may still hand on what it holds.
        return not any(one.given or one.words[HELD] for one in self._colleagues.values())

    # What others see.

    def _tell(self) -> None:
        head = self._head
        head[PARKED] = len(self._parked) + len(self._waiting)
        if not self._waiting:
            return
        head[WAITS_SINCE_NS] = since_ns = self._waiting[0][2]
        now_ns = time.monotonic_ns()
        if now_ns - since_ns > _BELL_EVERY_NS and now_ns - self._rung_ns > _BELL_EVERY_NS:
            self._rung_ns = now_ns
            with contextlib.suppress(OSError):
                self._hub.send(BELL, socket.MSG_DONTWAIT)

    def _has_room(self, more: int = 0) -> bool:
        """Whether there are descriptors for another connection, and for some more."""
        given = sum(len(colleague.given) for colleague in self._colleagues.values())
        taken = len(self._parked) + len(self._waiting) + given + len(self._colleagues)
        return taken + more < self._most

    # Accepting, in the scheme ``dispatch``.

    def _accept(self, listener: Listener) -> None:
        if not self._has_room():
            self._doors.pause()
        elif accepted := self._doors.accept(listener):
            sock, address = accepted
            self._welcome(sock, show(address), listener)

    def _welcome(self, sock: socket.socket, peer: str, listener: Listener) -> None:
        """Park a new connection, or refuse it."""
        held = sum(one.words[HELD] for one in self._colleagues.values())
        if len(self._parked) + len(self._waiting) + held >= self._settings.max_connections:
            self._head[TURNED_AWAY] += 1
            with contextlib.suppress(OSError):
                sock.send(self._manners.busy, socket.MSG_DONTWAIT)
            if self._closing.add(sock, patient=True):
                self._epoll.register(sock, select.EPOLLIN)
            return
        now = time.monotonic()
        session = Session(f"{os.getpid()}-{next(self._numbers)}", peer, listener.name)
        traits = passing.NEW | (passing.MORE if self._manners.greets else 0)
        deadline = now + self._settings.idle_timeout
        state = passing.packed(session.dump(), b"")
        self._park(sock.detach(), Baggage(traits, deadline, now, state=state))


def _readable(descriptor: int) -> bool:
    """Whether a client has sent something that nobody has read (ioctl_tty(2), FIONREAD)."""
    return bool(_INT.unpack(fcntl.ioctl(descriptor, termios.FIONREAD, bytes(_INT.size)))[0])
