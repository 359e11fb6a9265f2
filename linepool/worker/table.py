"""The connections that a worker holds: in its epoll set, on the board, and until they are closed.

Runs in workers. May be called by: the main thread; ``forget`` also by the evacuation thread, at a safe
point, for a connection that is not being served.
"""

from __future__ import annotations

import logging
import math
import select
import socket
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from linepool import core
from linepool.core.rules import AGAIN, CLOSED, HANDSHAKE, WAIT, WRITE
from linepool.ipc.announced import announcement
from linepool.kernel.lingering import LingeringClose
from linepool.kernel.sockets import socket_cookie
from linepool.session import Session
from linepool.worker.connection import Connection
from linepool.worker.context import WorkerContext
from linepool.worker.core_connection import CoreConnection
from linepool.worker.heads import Head, Heads
from linepool.worker.transport import Transport

if TYPE_CHECKING:
    from linepool.worker.handshakes import Beginning, Handshakes

log = logging.getLogger("linepool")

_Connection = CoreConnection if core.compiled else Connection


class Table(core.TableFields):
    """The connections of one worker.

    Args:
        context: What they share.
        epoll: Where they are registered.
        first_look: Seconds after which a new one is to be looked at.

    Attributes:
        connections: By descriptor.
        heads: Those whose PROXY header is to come; they are not among the connections.
        again: Those that take a turn in each round, by descriptor.
        first_look: Seconds after which a new one is to be looked at.
        handshakes: Those that are to be encrypted; None: there is no TLS.
        await_wake: Called with one whose request has begun to wait; returns whether it has left this worker.
        due: When the timers are to be looked at, on the monotonic clock.
    """

    def __init__(self, context: WorkerContext, epoll: select.epoll, first_look: float) -> None:
        self.connections: dict[int, Connection] = {}
        self.again: dict[int, Connection] = {}
        self.due = math.inf
        self._context = context
        self._board = context.board
        self._epoll = epoll
        self.first_look = first_look
        self._writing: dict[int, Connection] = {}  # those whose clients are to read first
        self._waiting: set[int] = set()  # descriptors of those whose requests wait here
        self.await_wake: Callable[[Connection], bool] = lambda _connection: False
        self._most_writing = context.settings.hot_connections
        self._lingering = LingeringClose()
        self.places = list(range(context.board.places))
        self.heads = Heads(epoll, self._count)
        self.handshakes: Handshakes | None = None
        if context.has_tls:
            from linepool.worker.handshakes import Handshakes  # noqa: PLC0415 - it needs ssl

            self.handshakes = Handshakes(context, epoll)

    @property
    def is_empty(self) -> bool:
        """Whether there is no connection left, and none that is being closed."""
        return not self.connections and not self._lingering and not (self.heads or self.handshakes)

    def await_head(self, sock: socket.socket, session: Session, accepted_at: float) -> None:
        """Hold a connection until its PROXY header has come; for the arguments, see ``take``."""
        settings = self._context.of(session.listener).settings
        self.add_head(Head.of(sock, session, accepted_at, settings))

    def add_head(self, head: Head) -> None:
        """Hold a connection until its PROXY header has come."""
        self.heads.add(head)
        self.look_at(self.heads.due)

    def shake(
        self,
        sock: socket.socket,
        session: Session,
        accepted_at: float,
        origin: int,
        before: Connection | None = None,
    ) -> None:
        """Hold a connection until its TLS handshake is done; for the arguments, see ``Beginning``."""
        assert self.handshakes is not None
        surplus = self.handshakes.add(sock, session, accepted_at, origin, before)
        self._board.count_origin(origin, 1)
        self._count()
        if surplus is not None:
            self._give_up(surplus)
        self.look_at(self.handshakes.due)

    def shaken(self, descriptor: int, round_ns: int) -> tuple[Connection, bool] | None:
        """Go on with a handshake; if that is done, return the connection, and whether it is a new one.

        ``round_ns``: when the present round of the worker began.
        """
        assert self.handshakes is not None
        done = self.handshakes.step(descriptor, round_ns)
        self.look_at(self.handshakes.due)
        if done is None:
            return None
        one, transport = done
        if transport is None:
            self._give_up(one)
            return None
        self._board.count_origin(one.origin, -1)
        one.session.tls = transport.tls
        connection = self.take(
            one.sock, one.session, one.accepted_at, one.origin, transport=transport
        )
        if one.before is None:
            return connection, True
        self.handshakes.replace(one.before, connection, self._context.subscriptions)
        return connection, False

    def has_moved(self, one: Beginning) -> None:
        """Note that another process continues with a connection that is not in ``handshakes`` any more."""
        self._board.count_origin(one.origin, -1)
        self._count()

    def _give_up(self, one: Beginning) -> None:
        """Close a connection whose handshake has failed."""
        self.has_moved(one)
        self.linger(one.sock, patient=False)
        if one.before is not None:
            one.before.on_closed()

    @property
    def held(self) -> int:
        """How many connections this worker has."""
        waiting = 0 if self.handshakes is None else len(self.handshakes)
        return len(self.connections) + len(self.heads) + waiting

    def _count(self) -> None:
        """Publish how many connections this worker has."""
        self._board.holds(self.held)

    def expect_one(self) -> None:
        """Publish one more than there are, until the next change: it is about to be closed."""
        self._board.holds(self.held + 1)

    def take(
        self,
        sock: socket.socket,
        session: Session,
        accepted_at: float,
        origin: int = 0,
        cookie: int = 0,
        transport: Transport | None = None,
        taken: int = 0,
    ) -> Connection:
        """Hold one more connection.

        Args:
            sock: The client's.
            session: What it remembers.
            accepted_at: On the monotonic clock, in seconds.
            origin: Where the client comes from; 0: it counts for no address.
            cookie: The socket's (SO_COOKIE); 0: not known yet.
            transport: Of its bytes; None: they are plain.
            taken: How many bytes have been read of it.
        """
        context = self._context.of(session.listener)
        if transport is None:
            transport = Transport(sock, context.settings.write_timeout)
        cookie = cookie or socket_cookie(sock)
        place = self._place(session, cookie)
        connection = _Connection(transport, session, context, accepted_at, place, cookie)
        if replaced := self.connections.get(connection.descriptor):
            self.close(replaced)  # a handler has closed its descriptor
        self.connections[connection.descriptor] = connection
        self._count()
        connection.origin, connection.taken = origin, taken
        self._board.count_origin(origin, 1)
        self._epoll.register(connection.descriptor, select.EPOLLIN)
        self.look_at(connection.quiet_since + self.first_look)
        return connection

    def _place(self, session: Session, cookie: int) -> int:
        """Return where a new connection is to be published; -1: nowhere.

        What a proxy has said of it is noted there, for the kernel knows the proxy's address only. If that is
        too long, the connection is not published: it could not continue with less.
        """
        if not self.places:
            return -1
        place = self.places.pop()
        if session.proxy is None or self._board.announce(place, cookie, announcement(session)):
            return place
        self.places.append(place)
        return -1

    def forget(self, connection: Connection) -> bool:
        """No longer hold a connection; its socket stays open.

        Returns whether it was there: a handler may have closed its descriptor.
        """
        descriptor = connection.descriptor
        # Not left to the close: as long as another process has the connection, the kernel would
        # continue to report its events, and nothing could stop it then (epoll(7)).
        try:
            self._epoll.unregister(descriptor)
            was_there = True
        except OSError:
            was_there = False
            connection.socket.detach()  # the number may be another file's by now
        del self.connections[descriptor]
        self.again.pop(descriptor, None)
        self._writing.pop(descriptor, None)
        self._waiting.discard(descriptor)
        self._count()
        self._board.count_origin(connection.origin, -1)
        if connection.place >= 0:
            self._board.hide(connection.place)
            self.places.append(connection.place)
        return was_there

    def arrange(self, connection: Connection) -> None:
        """Arrange what a connection needs after a turn; close it if it has ended."""
        descriptor = connection.descriptor
        if (
            connection.needs == WAIT
            and descriptor not in self._waiting
            and self.await_wake(connection)
        ):
            return
        needs = connection.needs
        if needs == CLOSED:
            self.close(connection)
            return
        if needs == HANDSHAKE:
            self._start_tls(connection)
            return
        if needs == AGAIN:
            self.again[descriptor] = connection
        else:
            self.again.pop(descriptor, None)
        has_waited, has_written = descriptor in self._waiting, descriptor in self._writing
        if (needs == WAIT) != has_waited or (needs == WRITE) != has_written:
            self._watch_for(connection)

    def _watch_for(self, connection: Connection) -> None:
        """Have the epoll set report what a connection needs now: input, room for output, or only its end."""
        descriptor, needs = connection.descriptor, connection.needs
        events = {WRITE: select.EPOLLOUT, WAIT: select.EPOLLRDHUP}.get(needs, select.EPOLLIN)
        try:
            self._epoll.modify(descriptor, events)
        except OSError:  # a handler has closed its descriptor
            self.close(connection)
            return
        (self._waiting.add if needs == WAIT else self._waiting.discard)(descriptor)
        if self._writing.pop(descriptor, None) is not None or needs == WRITE:
            self.due = 0.0  # its deadline is another one
        if needs == WRITE:
            self._writing[descriptor] = connection
            if len(self._writing) > self._most_writing:
                self._close_slowest()

    def _start_tls(self, connection: Connection) -> None:
        """Have a connection in plain text continue with TLS: with a new protocol and an empty session."""
        self.forget(connection)
        session = connection.conversation.session
        self.shake(
            connection.socket, session, connection.accepted_at, connection.origin, connection
        )

    @property
    def active(self) -> int:
        """How many of the connections do not wait until their clients read."""
        return len(self.connections) - len(self._writing)

    def close(self, connection: Connection) -> None:
        """Close a connection that has ended, and run the hooks for that."""
        if not self.forget(connection):
            self._board.count_dropped()
            log.error("a handler has closed the descriptor of a client peer=%s", connection.peer)
        self._end(connection)

    def close_all(self) -> None:
        """Close what is left at an immediate stop, which may have interrupted ``take`` or ``forget``."""
        for connection in self.present(self.connections):
            self.forget(connection)  # that it is not registered says nothing now
            self._end(connection)
        self.heads.close()

    def _end(self, connection: Connection) -> None:
        """End the server's side of a connection that is not held any more, and run the hooks for that."""
        if connection.lingers:
            self.linger(connection.socket, patient=connection.lost_framing)
        else:
            connection.socket.close()
        connection.on_closed()

    def present(self, some: Mapping[int, Connection]) -> Iterator[Connection]:
        """Yield connections while they are held: a hook for one may run until others are gone."""
        for connection in list(some.values()):
            if some.get(connection.descriptor) is connection:
                yield connection

    def look_at(self, moment: float) -> None:
        """Have the timers looked at no later than this."""
        self.due = min(self.due, moment)

    def linger(self, sock: socket.socket, *, patient: bool) -> None:
        """End the server's side of a connection, and close it when the client has what was sent."""
        if self._lingering.add(sock, patient=patient):
            self._epoll.register(sock, select.EPOLLIN)
            self.look_at(self._lingering.due)

    def refuse(self, sock: socket.socket, reply: bytes | None) -> None:
        """Send the reply to a client that is not served, and close its connection.

        ``reply``: None: the client could not read any; its connection is reset.
        """
        if self._lingering.refuse(sock, reply):
            self._epoll.register(sock, select.EPOLLIN)
            self.look_at(self._lingering.due)

    def drain(self, descriptor: int) -> None:
        """Read away what has arrived on a connection that is being closed, if there is one."""
        if descriptor in self._lingering and self._lingering.drain(descriptor):
            self._close(descriptor)

    def close_lingered(self, now: float) -> float:
        """Close those that have lingered, or shaken hands, for too long; return when to look again."""
        for descriptor in self._lingering.expired(now):
            self._close(descriptor)
        if self.handshakes is None:
            return self._lingering.due
        for one in self.handshakes.expired(now):
            self._give_up(one)
        return min(self._lingering.due, self.handshakes.due)

    def _close(self, descriptor: int) -> None:
        self._epoll.unregister(descriptor)
        self._lingering.close(descriptor)

    def _close_slowest(self) -> None:
        """Close the connection whose client has not read for the longest time."""
        slowest = min(self._writing.values(), key=lambda one: one.deadline)
        log.warning("connection closed: too many clients do not read peer=%s", slowest.peer)
        slowest.abort()
        self.close(slowest)
