"""The schemes ``shared`` and ``dispatch``, in the worker: it holds connections and serves who speaks.

Runs in workers. In ``shared`` the worker accepts for itself, keeps connections while they are hot, and
hands them on to the parker when they are quiet, when there are too many, when others are free to serve
them, and when it leaves. In ``dispatch`` it is given each by the parker and gives it back at once. One
request is served at a time; while that takes long, the second thread hands on the rest.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import math
import os
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator

from linepool.ipc import channel as passing
from linepool.ipc.board import (
    BEGUN_WITH,
    CLIENT_FD,
    CONNECTIONS,
    FREE_NS,
    GIVEN,
    HELD,
    ORDER,
    PARKED,
    PARKER,
    PARKER_FULL,
    REFUSED,
    SLOTS,
    WAITED_NS,
    WAITING,
    WAITS_SINCE_NS,
    Board,
    Order,
)
from linepool.ipc.channel import Baggage, Kind, Message
from linepool.kernel.acceptor import FULL_AT_MOST, Doors
from linepool.kernel.lingering import LONGEST, Closing
from linepool.kernel.listeners import Listener, as_connection, show
from linepool.pool.status import State
from linepool.session import Session
from linepool.worker.balance import Neighbours
from linepool.worker.connection import END, OUTPUT, TURN, HotConnection
from linepool.worker.context import Station
from linepool.worker.park_policy import Cooling

log = logging.getLogger("linepool")

_MOMENT = 0.001  # seconds; a worker that finds work within it was not idle
_MOMENT_NS = 1_000_000
_STEP = 0.01  # seconds between two looks while something cannot be done yet
_ASK_EVERY_NS = 1_000_000  # between two questions to the parker, if the first has no answer
_STARVING_NS = 1_000_000  # after so long even a worker that has enough to do takes who waits
_MESSAGES = 16  # that are heard before the other clients get their turn
_FEW = 4  # clients of its own that a worker serves in a round while others wait
_WORTH_NS = 200_000  # a client that would wait longer than this is handed on, if somebody is free
_MOST_AT_ONCE = 16  # connections that are handed on because another worker has time left


class Sharing:
    """The connections of one worker, and their service.

    Args:
        station: What its connections share.
        board: Where the worker sees who is free, and who waits.
        number: The worker's slot.
        channel: The worker's end of its channel.
        listeners: Where it accepts; in ``dispatch`` none.
        report: Tells the master a state.
        is_worn: Whether the worker may leave because it has served its number.
    """

    def __init__(
        self,
        station: Station,
        board: Board,
        number: int,
        channel: socket.socket,
        listeners: list[Listener],
        report: Callable[[State], None],
        is_worn: Callable[[], bool],
    ) -> None:
        settings = station.settings
        self._station = station
        self._orders = station.orders
        self._words = station.slot.words
        self._held = station.slot.held
        self._head = board.head
        self._neighbours = Neighbours(board, number)
        self._channel = channel
        self._report = report
        self._is_worn = is_worn
        accepts = bool(listeners)
        self._park_after = settings.park_after if accepts else 0.0
        self._most = settings.hot_connections
        pid = os.getpid()
        self._names = (f"{pid}-{number}" for number in itertools.count(1))  # of new connections
        self._connections: dict[int, HotConnection] = {}
        self._unfinished: dict[int, HotConnection] = {}
        self._places = list(range(0, len(self._held), 2))
        self._to_return: list[int] = []  # numbers of connections whose giving back found no room
        self._closing = Closing()
        self._idle = True  # as the master knows it
        self._is_calm = True  # it has waited for longer than a moment the last time
        self._left_at = 0.0  # when it was told to leave; 0: it stays
        self._asked_ns = 0
        self._began_ns = 0  # when the round began
        self._waited_ns = 0
        self._mean_ns = 0  # what it took lately to serve one connection once
        self._cooling = Cooling(self._words, self._park_after)
        self._due = math.inf  # when to look at the quiet ones again
        self._epoll = select.epoll()
        self._epoll.register(channel, select.EPOLLIN)
        wakeup = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._epoll.register(wakeup, select.EPOLLIN | select.EPOLLET)
        self._orders.wake = functools.partial(os.eventfd_write, wakeup, 1)
        if station.audience.fileno() >= 0:
            self._epoll.register(station.audience, select.EPOLLIN)
        # One worker is woken for each client, not all.
        self._doors = Doors(listeners, self._epoll, select.EPOLLIN | select.EPOLLEXCLUSIVE)

    def run(self) -> None:
        """Serve until it is time to leave and everybody is gone."""
        self._report(State.READY)
        try:
            self._work()
        finally:
            for connection in self._those_here(self._connections):  # it stops at once
                self._end(connection)

    def _work(self) -> None:
        while not (self._left_at and self._is_done()):
            events = self._wait()
            began_ns = self._began_ns
            if self._mean_ns * len(events) > _WORTH_NS:
                self._share(events, began_ns)
            self._tend(events)
            if self._unfinished:
                for connection in self._those_here(self._unfinished):
                    self._serve(connection, connection.turn)
            self._look_around(began_ns, len(events))
        self._give_back()

    def _tend(self, events: list[tuple[int, int]]) -> None:
        """See to each descriptor for which something has happened."""
        connections, unfinished = self._connections, self._unfinished
        gives_back = not self._park_after
        for descriptor, _ in events:
            connection = connections.get(descriptor)
            if connection is not None:
                if descriptor in unfinished:
                    continue
                # As _serve() does it, for the most frequent case, without its two calls (0.1 microseconds):
                # there is nothing to be arranged.
                if self._idle:
                    self._begin_work()
                connection.turn()
                if connection.waits_for != connection.arranged or gives_back:
                    self._arrange(connection)
            elif descriptor in self._doors.listeners:
                self._accept(self._doors.listeners[descriptor])
            else:
                self._hear(descriptor)

    # Waiting.

    def _wait(self) -> list[tuple[int, int]]:
        """Wait for something to do, and tell others that this worker is free."""
        poll = self._epoll.poll
        words = self._words
        now_ns = time.monotonic_ns()
        others_wait = self._head[WAITING]
        most = _FEW if others_wait else -1
        if self._unfinished:
            self._began_ns = now_ns
            return poll(0, most)
        if self._takes_work():
            words[FREE_NS] = now_ns
            if others_wait:
                self._ask(now_ns)
        # Work that came late the last time will come late again: then the short wait is left out.
        events = [] if self._is_calm else poll(_MOMENT, most)
        if not events:
            if not self._idle:
                self._idle = True
                self._report(State.IDLE)
            pause = self._due - time.monotonic()
            events = poll(None if pause == math.inf else min(max(0.0, pause), LONGEST))
        words[FREE_NS] = 0
        self._began_ns = began_ns = time.monotonic_ns()
        self._is_calm = began_ns - now_ns > _MOMENT_NS
        self._waited_ns = waited_ns = self._waited_ns + began_ns - now_ns
        words[WAITED_NS] = waited_ns
        return events

    def _takes_work(self) -> bool:
        """Whether it may be given connections when it has nothing to do."""
        if self._left_at:
            return int(self._words[ORDER]) == Order.STOP
        return not self._doors.open_at  # else it has no room, or no descriptors

    def _ask(self, now_ns: int) -> None:
        """Ask the parker for connections that wait."""
        if now_ns - self._asked_ns > _ASK_EVERY_NS:
            self._asked_ns = now_ns
            passing.send(self._channel, Kind.FREE)

    # Serving.

    def _serve(self, connection: HotConnection, step: Callable[[], None]) -> None:
        """Have a connection do something, and see what has become of it."""
        if self._idle:
            self._begin_work()
        step()
        self._arrange(connection)

    def _begin_work(self) -> None:
        self._idle = False
        self._report(State.TAKEN)

    def _arrange(self, connection: HotConnection) -> None:
        """Arrange for what a connection waits for."""
        if connection.waits_for == connection.arranged:
            if not self._park_after and not self._left_at:
                self._hand_on(connection)
            return
        before, connection.arranged = connection.arranged, connection.waits_for
        if connection.waits_for == END:
            self._end(connection)
            return
        if connection.waits_for == TURN:
            self._unfinished[connection.descriptor] = connection
        else:
            self._unfinished.pop(connection.descriptor, None)
        if OUTPUT in (before, connection.waits_for):
            writes = connection.waits_for == OUTPUT
            self._epoll.modify(connection.descriptor, select.EPOLLOUT if writes else select.EPOLLIN)
            self._due = 0.0  # the time for it is another one

    def _accept(self, listener: Listener) -> None:
        has_room = len(self._connections) < self._most or self._make_room()
        accepted = self._doors.accept(listener)
        if accepted is None:
            self._mind_the_doors()
            return
        sock, address = accepted
        if self._is_crowded():
            self._refuse(sock)
            return
        session = Session(next(self._names), show(address), listener.name)
        # Who cannot take it must not leave it in the queue: the kernel has woken nobody else for it.
        if has_room or self._left_at or not self._pass_on(sock, session):
            self._begin(self._take(sock, session, time.monotonic()))

    def _pass_on(self, sock: socket.socket, session: Session) -> bool:
        """Hand on a new connection as it is; return whether it is gone."""
        if not self._head[PARKER] or self._head[PARKER_FULL]:
            return False
        now = time.monotonic()
        deadline = now + self._station.settings.idle_timeout
        state = passing.packed(session.dump(), b"")
        baggage = Baggage(passing.NEW | passing.MORE, deadline, now, state)
        if not passing.send(self._channel, Kind.CONNECTION, 0, baggage, (sock.fileno(),)):
            return False
        sock.close()
        return True

    def _mind_the_doors(self) -> None:
        """If they are shut for want of descriptors, open them in time; after some such times, leave."""
        if self._doors.open_at:
            self._due = min(self._due, self._doors.open_at)
        if self._doors.full >= FULL_AT_MOST:
            self._orders.resign()  # descriptors that leaked go with the process

    def _begin(self, connection: HotConnection) -> None:
        """Serve a new connection for the first time."""
        self._words[CONNECTIONS] += 1
        self._serve(connection, connection.begin)

    def _take(
        self, sock: socket.socket, session: Session, accepted_at: float, cookie: int = 0
    ) -> HotConnection:
        """Hold one more connection."""
        connection = HotConnection(sock, session, self._station, accepted_at, cookie, self.make_way)
        self._connections[connection.descriptor] = connection
        self._words[HELD] = len(self._connections)
        if self._places:
            connection.place = self._places.pop()
        self._epoll.register(connection.descriptor, select.EPOLLIN)
        self._due = min(self._due, connection.quiet_since + (self._park_after or _STEP))
        return connection

    def _forget(self, connection: HotConnection) -> None:
        """No longer hold a connection."""
        # Not left to the close: as long as another process has the connection, the kernel would go
        # on to tell of it, and nothing could stop it then (epoll(7)).
        self._epoll.unregister(connection.descriptor)
        del self._connections[connection.descriptor]
        self._unfinished.pop(connection.descriptor, None)
        self._words[HELD] = len(self._connections)
        if connection.place >= 0:
            self._hide(connection.place)
            self._places.append(connection.place)

    def _hide(self, place: int) -> int:
        """Take a connection off the board; return what stood there."""
        if place < 0:
            return 0
        shown, self._held[place] = self._held[place], 0
        return shown

    def _those_here(self, some: dict[int, HotConnection]) -> Iterator[HotConnection]:
        """Yield connections as long as they are here: a hook for one may run until others are gone."""
        for connection in list(some.values()):
            if some.get(connection.descriptor) is connection:
                yield connection

    def _end(self, connection: HotConnection) -> None:
        self._forget(connection)
        if connection.lingers:
            self._close_slowly(connection.socket, patient=connection.was_lost)
        else:
            connection.socket.close()
        connection.end()

    def _close_slowly(self, sock: socket.socket, *, patient: bool) -> None:
        if self._closing.add(sock, patient=patient):
            self._epoll.register(sock, select.EPOLLIN)
            self._due = min(self._due, self._closing.due)

    def _is_crowded(self) -> bool:
        """Whether there are too many connections already, this one not counted."""
        head, most = self._head, self._station.settings.max_connections
        slots = head[SLOTS]
        if head[PARKED] + slots * self._most < most:
            return False
        return int(head[PARKED]) + self._neighbours.held() >= most

    def _refuse(self, sock: socket.socket) -> None:
        self._words[REFUSED] += 1
        try:
            sock.send(self._station.service.busy_reply(), socket.MSG_DONTWAIT)
        except OSError:
            sock.close()
            return
        self._close_slowly(sock, patient=True)

    # Hearing.

    def _hear(self, descriptor: int) -> None:
        if descriptor == self._channel.fileno():
            self._hear_channel()
        elif descriptor == self._station.audience.fileno():
            self._station.audience.deliver()
            for connection in self._those_here(self._connections):
                if connection.waits_for != connection.arranged:
                    self._arrange(connection)
        elif descriptor in self._closing and self._closing.has_heard(descriptor):
            self._epoll.unregister(descriptor)
            self._closing.close(descriptor)
        # Else it was handed on in the meantime.

    def _hear_channel(self) -> None:
        words = self._words
        self._asked_ns = 0  # what it had asked for may be this
        for _ in range(_MESSAGES):
            try:
                message = passing.receive(self._channel)
            except EOFError:
                self._epoll.unregister(self._channel)
                self._orders.channel_ended()
                return
            if message is None:
                return
            if message.kind is Kind.CONNECTION:
                self._welcome(message)
            if words[GIVEN] == words[BEGUN_WITH]:  # to look for more would cost a call in vain
                return

    def _welcome(self, message: Message) -> None:
        """Serve a connection that the parker has given."""
        if not message.descriptors:
            log.warning("no descriptor left for a connection; given back")
            self._to_return.append(message.number)
            self._give_back()  # what came behind it too, so that they stay in order
            self._doors.pause()
            self._mind_the_doors()
            return
        self._doors.full = 0
        self._words[BEGUN_WITH] = message.number
        sock = as_connection(message.descriptors[0])
        connection = self._unpacked(sock, message.baggage)
        if connection is None:
            sock.close()
        elif message.baggage.traits & passing.EXPIRED:
            self._serve(connection, connection.expire)
        elif message.baggage.traits & passing.NEW:
            self._begin(connection)
        else:
            self._serve(connection, connection.turn)
        if len(self._connections) > self._most:
            self._make_room(connection)

    def _unpacked(self, sock: socket.socket, baggage: Baggage) -> HotConnection | None:
        """Hold a connection that was packed, or None: what came with it makes no sense."""
        try:
            state, protocol = passing.unpacked(baggage.state)
            session = Session.load(state)
            connection = self._take(sock, session, baggage.since, baggage.cookie)
        except (ValueError, TypeError, struct.error) as error:
            log.error("connection closed, its state makes no sense: %s", error)  # noqa: TRY400
            return None
        try:
            connection.unpack(baggage, protocol)
        except (ValueError, TypeError, LookupError, struct.error) as error:
            log.error("connection closed, its state makes no sense: %s", error)  # noqa: TRY400
            self._forget(connection)
            return None
        return connection

    # Handing on.

    def _hand_on(self, connection: HotConnection) -> bool:
        """Pass a connection to the parker; return whether it is gone."""
        if not self._head[PARKER] or self._head[PARKER_FULL]:
            return False
        baggage = connection.pack()
        if baggage is None:
            return False
        place = connection.place
        # First: who finds it on the board when this worker is dead may take it.
        shown = self._hide(place)
        if not passing.send(self._channel, Kind.CONNECTION, 0, baggage, (connection.descriptor,)):
            if place >= 0:
                self._held[place] = shown
            return False
        self._forget(connection)
        connection.let_go()
        return True

    def _share(self, events: list[tuple[int, int]], now_ns: int) -> None:
        """Hand on a part of those who speak, if there are workers that would serve them sooner."""
        free = self._neighbours.free(now_ns)
        speaking = [fd for fd, _ in events if fd in self._connections]
        for descriptor in speaking[: len(speaking) * free // (free + 1)]:
            connection = self._connections[descriptor]
            connection.unfinished = True  # what it has sent is here, if not read yet
            if not self._hand_on(connection):
                connection.unfinished = connection.waits_for == TURN

    def _balance(self, now_ns: int) -> None:
        """Hand on a part of the connections if this worker has no time left and others have some."""
        for held in self._neighbours.with_time_left(now_ns):
            self._hand_on_some(max(1, (len(self._connections) - held) // 2))

    def _hand_on_some(self, count: int) -> None:
        for connection in list(self._connections.values())[: min(count, _MOST_AT_ONCE)]:
            self._hand_on(connection)

    def _make_room(self, newcomer: HotConnection | None = None) -> bool:
        """Hand on the connection that has been quiet longest; return whether one could be.

        But a newcomer that had itself been quiet for longer goes back: else each of many clients that
        speak in turn would push out the one that speaks next.
        """
        by_age = sorted(self._connections.values(), key=lambda one: one.quiet_since)
        if newcomer in by_age and newcomer.was_quiet > time.monotonic() - by_age[0].quiet_since:
            by_age.insert(0, newcomer)
        return any(self._hand_on(connection) for connection in by_age)

    def make_way(self) -> None:
        """Hand on all connections but that in hand, for its handler takes long.

        To be called by the second thread, or by who waits for a client to read.
        """
        in_hand = self._words[CLIENT_FD] - 1
        for connection in list(self._connections.values()):
            if connection.descriptor != in_hand:
                self._hand_on(connection)
        self._give_back()

    def _give_back(self) -> None:
        """Give back to the parker what it has given, for it cannot be begun now."""
        with contextlib.suppress(EOFError):  # the main thread hears it too
            while message := passing.receive(self._channel):
                if message.kind is Kind.CONNECTION:
                    self._to_return.append(message.number)
                passing.close(message.descriptors)
        while self._to_return and passing.send(self._channel, Kind.BACK, self._to_return[0]):
            del self._to_return[0]

    # Between the turns.

    def _look_around(self, began_ns: int, served: int) -> None:
        now_ns = time.monotonic_ns()
        if served:
            self._mean_ns += ((now_ns - began_ns) // served - self._mean_ns) >> 3
        head = self._head
        if head[WAITING] and now_ns - head[WAITS_SINCE_NS] > _STARVING_NS:
            self._ask(now_ns)
        if len(self._connections) > 1:
            self._balance(now_ns)
        now = now_ns / 1e9
        if now >= self._due:
            self._look_at_the_quiet(now)
        if self._to_return:
            self._give_back()
            self._due = min(self._due, now + _STEP)
        if self._left_at or self._orders.leaving() or self._is_worn():
            self._leave(now)

    def _look_at_the_quiet(self, now: float) -> None:
        """Hand on who is cold, end whose time is up; note when to look again."""
        self._cooling.look(now)
        moments = []
        for connection in self._those_here(self._connections):
            cold_at = self._cooling.cold_at(connection.quiet_since, connection.was_quiet)
            cold = cold_at <= now
            if cold and not self._left_at and self._hand_on(connection):
                continue
            connection.look_at_the_clock(now)
            if connection.waits_for == END:
                self._end(connection)
                continue
            if not cold:
                # Not for each of them at its own moment: to wake costs more than to hand on.
                moments.append(max(cold_at, now + _STEP))
            elif not connection.is_bound:  # it could not be handed on
                moments.append(now + _STEP)
            moments.append(connection.deadline)
        for descriptor in self._closing.look_at_the_clock(now):
            self._epoll.unregister(descriptor)
            self._closing.close(descriptor)
        if self._closing:
            moments.append(self._closing.due)
        self._doors.look_at_the_clock(now)
        if self._doors.open_at:
            moments.append(self._doors.open_at)
        self._due = min(moments, default=math.inf)

    # Leaving.

    def _leave(self, now: float) -> None:
        """Hand on all connections, or end them when they are quiet."""
        order = int(self._words[ORDER])
        if not self._left_at:
            self._left_at = now
            self._take_queued(order)
            self._doors.shut(math.inf)
        moving = order != Order.STOP and not self._orders.is_orphaned
        patient = order == Order.RECYCLE or not self._orders.leaving()
        for connection in self._those_here(self._connections):
            if moving and (self._hand_on(connection) or patient or not connection.is_bound):
                continue  # it is gone; or it stays until it ends by itself, or until it can go
            connection.hang_up(now, self._left_at)
            if connection.waits_for == END:
                self._end(connection)
        self._due = min(self._due, now + _STEP)

    def _take_queued(self, order: int) -> None:
        """Before a stop, take the clients that the kernel has queued: they think they are connected."""
        if order != Order.STOP:
            return
        for listener in self._doors.listeners.values():
            for _ in range(listener.queue()[0]):
                self._accept(listener)

    def _is_done(self) -> bool:
        if self._connections or self._closing:
            return False
        # A stop of all: the parker may still have clients to be served.
        return int(self._words[ORDER]) != Order.STOP or not self._head[PARKER]

    def let_go(self) -> None:
        """Close the listeners, for the master is gone; called from a signal handler too."""
        self._doors.abandon()
