"""The connections that a worker holds: in its epoll set, on the board, and until they are closed.

Runs in workers. May be called by: the main thread; ``forget`` also by the evacuation thread, at a safe
point, for a connection that is not being served.
"""

from __future__ import annotations

import logging
import math
import select
import socket
from collections.abc import Iterator, Mapping

from linepool import core
from linepool.core.rules import AGAIN, CLOSED, WRITE
from linepool.kernel.lingering import LingeringClose
from linepool.session import Session
from linepool.worker.connection import Connection
from linepool.worker.context import WorkerContext
from linepool.worker.core_connection import CoreConnection
from linepool.worker.transport import Transport

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
        again: Those that take a turn in each round, by descriptor.
        first_look: Seconds after which a new one is to be looked at.
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
        self._most_writing = context.settings.hot_connections
        self._lingering = LingeringClose()
        self.places = list(range(context.board.places))

    @property
    def is_empty(self) -> bool:
        """Whether there is no connection left, and none that is being closed."""
        return not self.connections and not self._lingering

    def take(
        self,
        sock: socket.socket,
        session: Session,
        accepted_at: float,
        origin: int = 0,
        cookie: int = 0,
    ) -> Connection:
        """Hold one more connection.

        Args:
            sock: The client's.
            session: What it remembers.
            accepted_at: On the monotonic clock, in seconds.
            origin: Where the client comes from; 0: it counts for no address.
            cookie: The socket's (SO_COOKIE); 0: not known yet.
        """
        transport = Transport(sock, self._context.settings.write_timeout)
        place = self.places.pop() if self.places else -1
        connection = _Connection(transport, session, self._context, accepted_at, place, cookie)
        if replaced := self.connections.get(connection.descriptor):
            self.close(replaced)  # a handler has closed its descriptor
        self.connections[connection.descriptor] = connection
        self._board.holds(len(self.connections))
        connection.origin = origin
        self._board.count_origin(origin, 1)
        self._epoll.register(connection.descriptor, select.EPOLLIN)
        self.look_at(connection.quiet_since + self.first_look)
        return connection

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
        self._board.holds(len(self.connections))
        self._board.count_origin(connection.origin, -1)
        if connection.place >= 0:
            self._board.hide(connection.place)
            self.places.append(connection.place)
        return was_there

    def arrange(self, connection: Connection) -> None:
        """Arrange what a connection needs after a turn; close it if it has ended."""
        needs, descriptor = connection.needs, connection.descriptor
        if needs == CLOSED:
            self.close(connection)
            return
        if needs == AGAIN:
            self.again[descriptor] = connection
        else:
            self.again.pop(descriptor, None)
        if (needs == WRITE) != (descriptor in self._writing):
            events = select.EPOLLOUT if needs == WRITE else select.EPOLLIN
            try:
                self._epoll.modify(descriptor, events)
            except OSError:  # a handler has closed its descriptor
                self.close(connection)
                return
            self.due = 0.0  # its deadline is another one
            if needs != WRITE:
                del self._writing[descriptor]
                return
            self._writing[descriptor] = connection
            if len(self._writing) > self._most_writing:
                self._close_slowest()

    @property
    def active(self) -> int:
        """How many of the connections do not wait until their clients read."""
        return len(self.connections) - len(self._writing)

    def close(self, connection: Connection) -> None:
        """Close a connection that has ended, and run the hooks for that."""
        if not self.forget(connection):
            self._board.count_dropped()
            log.error("a handler has closed the descriptor of a client peer=%s", connection.peer)
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

    def refuse(self, sock: socket.socket, reply: bytes) -> None:
        """Send the reply to a client that is not served, and close its connection."""
        if self._lingering.refuse(sock, reply):
            self._epoll.register(sock, select.EPOLLIN)
            self.look_at(self._lingering.due)

    def drain(self, descriptor: int) -> None:
        """Read away what has arrived on a connection that is being closed, if there is one."""
        if descriptor in self._lingering and self._lingering.drain(descriptor):
            self._close(descriptor)

    def close_lingered(self, now: float) -> float:
        """Close those that have lingered long enough; return when to look again."""
        for descriptor in self._lingering.expired(now):
            self._close(descriptor)
        return self._lingering.due

    def _close(self, descriptor: int) -> None:
        self._epoll.unregister(descriptor)
        self._lingering.close(descriptor)

    def _close_slowest(self) -> None:
        """Close the connection whose client has not read for the longest time."""
        slowest = min(self._writing.values(), key=lambda one: one.deadline)
        log.warning("connection closed: too many clients do not read peer=%s", slowest.peer)
        slowest.abort()
        self.close(slowest)
