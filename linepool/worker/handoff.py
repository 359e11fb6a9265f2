"""Passing connections to the parker, and taking those that it gives.

Runs in workers. ``receive`` returns what has come and serves nothing; the loop serves. May be called by:
the main thread; ``evacuate`` and what it calls also by the evacuation thread, at a safe point.
"""

from __future__ import annotations

import contextlib
import logging
import math
import socket
import time

from linepool.errors import CANNOT_CONTINUE, LeaveNow
from linepool.failures import text_of
from linepool.ipc import channel as channels
from linepool.ipc.messages import (
    ConnectionState,
    PassedConnection,
    Rejected,
    Returned,
    Waits,
    WantsWork,
)
from linepool.kernel.sockets import as_connection, peer_name, taken_bytes
from linepool.session import Session
from linepool.worker.connection import Connection
from linepool.worker.context import WorkerContext
from linepool.worker.moving import portable_state
from linepool.worker.table import Table

log = logging.getLogger("linepool")

_ASK_EVERY_NS = 1_000_000  # between two requests for work, if the first is not answered


class Handoff:
    """One worker's end of its channel to the parker.

    Args:
        context: What the worker's connections share.
        table: The connections that it holds.
        channel: The worker's end.

    Attributes:
        to_return: Numbers of connections that the parker gave and whose return found no room yet.
    """

    def __init__(self, context: WorkerContext, table: Table, channel: socket.socket) -> None:
        self._board = context.board
        self._context = context
        self._max_state_bytes = context.settings.max_state_bytes
        self._table = table
        self._channel = channel
        self._asked_ns = 0
        self.to_return: list[int] = []

    def give(
        self, connection: Connection, *, has_input: bool = False, at_once: bool = False
    ) -> bool:
        """Pass a connection to the parker; return whether it is gone.

        Args:
            connection: It is not being served.
            has_input: The client has sent something that was not read: a worker is to serve it.
            at_once: However large its state is; otherwise that may have to stay for a while.
        """
        board, place = self._board, connection.place
        if not board.parker_has_room:
            return False
        if connection.arrival.stays_until > time.monotonic() and not at_once:
            return False
        state = dump(connection, self._max_state_bytes, has_input=has_input)
        if state is None:
            return False
        state.origin = connection.origin
        # First: if this worker is killed meanwhile, the parker may have it, and the master must not end it
        # as the connection that was served last.
        shown = board.goes(place) if place >= 0 else 0
        if board.served_descriptor == connection.descriptor:
            board.serving(0, 0)
        if not channels.send(self._channel, PassedConnection(state, connection.descriptor)):
            if place >= 0:
                board.restore(place, shown)
            return False
        self._table.forget(connection)
        if self._context.waits is not None:
            self._context.waits.moved(connection)
        connection.moved()
        return True

    def give_new(
        self, sock: socket.socket, session: Session, origin: int, accepted_at: float = 0.0
    ) -> bool:
        """Pass a new connection to the parker as it is; return whether it is gone.

        ``accepted_at``: when it was accepted, if its client has not sent anything since.
        """
        if not self._board.parker_has_room:
            return False
        flags = channels.NEW | (0 if accepted_at else channels.MORE)
        since = accepted_at or time.monotonic()
        timeout = self._context.of(session.listener).settings.first_timeout
        state = channels.first_state(session, flags, since, timeout, origin)
        if not channels.send(self._channel, PassedConnection(state, sock.fileno())):
            return False
        sock.close()
        return True

    def give_head(self, sock: socket.socket, session: Session, accepted_at: float) -> bool:
        """Pass a connection to the parker whose PROXY header is to come; return whether it is gone."""
        if not self._board.parker_has_room:
            return False
        seconds = self._context.of(session.listener).settings.proxy_timeout
        flags = channels.NEW | channels.HEAD
        state = channels.first_state(session, flags, accepted_at, seconds, 0)
        if not channels.send(self._channel, PassedConnection(state, sock.fileno())):
            return False
        sock.close()
        return True

    def give_heads(self) -> None:
        """Pass all connections to the parker whose PROXY headers are to come, as far as possible."""
        heads = self._table.heads
        for head in heads:
            heads.remove(head)
            if not self.give_head(head.sock, head.session, head.accepted_at):
                heads.add(head)
                return

    def ask_for_work(self, now_ns: int) -> None:
        """Ask the parker for connections that wait."""
        if now_ns - self._asked_ns > _ASK_EVERY_NS:
            self._asked_ns = now_ns
            channels.send(self._channel, WantsWork())

    def receive(self) -> PassedConnection | None:
        """Return the next connection that the parker gives, or None: there is none.

        Raises:
            EOFError: The other end of the channel is closed.
        """
        self._asked_ns = 0  # what it had asked for may be this
        if self.to_return and not self.return_unstarted():
            return None  # they keep their order: none may be begun before an older one is returned
        while (message := channels.receive(self._channel, self._max_state_bytes)) is not None:
            if isinstance(message, PassedConnection):
                return message
            if isinstance(message, Waits):
                self._note_woken(message)
            elif isinstance(message, Rejected) and message.descriptor >= 0:
                if message.number:
                    self._board.has_begun_with(message.number)
                sock = as_connection(message.descriptor)
                self._end(sock, peer_name(sock), message.why, self._context.only)
            else:
                channels.close_descriptor(message)
        return None

    def take(self, message: PassedConnection) -> Connection | None:
        """Hold a connection that was received; None: PROXY header or TLS are to come, or it has ended.

        That it is begun is published once it is held: at every moment it counts here or as given, and if this
        worker is killed before, another one is given it.
        """
        state = message.state
        sock = as_connection(message.descriptor)
        connection, context = None, self._context.only
        try:
            dump, protocol = channels.split_state(state.data)
            session = Session.load(dump)
            context = self._context.of(session.listener)
            session.starttls = context.settings.starttls
            if state.flags & channels.HEAD:
                self._take_head(sock, session, state)
            elif context.settings.begins_with_tls and state.flags & channels.NEW:
                self._table.shake(sock, session, state.accepted_at, state.origin)
            else:
                connection = self._table.take(
                    sock,
                    session,
                    state.accepted_at,
                    state.origin,
                    state.cookie,
                    taken=taken_bytes(sock) or 0,
                )
                connection.load(state, protocol, message.number)
        except LeaveNow:
            raise
        except BaseException as error:  # noqa: BLE001 - another worker, or a protocol, made the state
            if connection is None:
                self._table.expect_one()
            self._board.has_begun_with(message.number)
            if connection is not None:
                self._table.forget(connection)
            peer = channels.session_of(state).peer or peer_name(sock)
            self._board.holds(self._table.held)
            self._end(sock, peer, f"{type(error).__name__}: {text_of(error)}", context)
            if connection is not None:
                connection.on_closed()
            return None
        self._board.has_begun_with(message.number)
        if connection is not None:
            connection.show()
        return connection

    def _take_head(self, sock: socket.socket, session: Session, state: ConnectionState) -> None:
        if state.flags & channels.EXPIRED:
            sock.close()
        else:
            self._table.await_head(sock, session, state.accepted_at)

    def _end(self, sock: socket.socket, peer: str, why: str, context: WorkerContext | None) -> None:
        """Tell a client that its connection cannot continue, and close that; no context: close it only."""
        log.error("connection ended: its state cannot be loaded peer=%s why=%r", peer, why)
        self._board.count_dropped()
        if context is None:
            sock.close()
            return
        try:
            has_tls = context.settings.begins_with_tls
            reply = None if has_tls else context.service.error_reply(CANNOT_CONTINUE)
            self._table.refuse(sock, reply)
        except LeaveNow:
            raise
        except BaseException:
            log.exception("no reply could be sent")
            sock.close()

    def evacuate(self) -> None:
        """Pass all connections to the parker, except the one that is being served."""
        served = self._board.served_descriptor
        for connection in list(self._table.connections.values()):
            if connection.descriptor != served:
                self.give(connection, at_once=True)
        self.give_silent()
        self.give_heads()
        self.return_unstarted()

    def give_silent(self, now: float = math.inf) -> None:
        """Pass the connections to the parker that are to begin with TLS, and whose clients are silent.

        ``now``: the present, on the monotonic clock; infinite: also those that have just connected.
        """
        handshakes = self._table.handshakes
        if handshakes is None:
            return
        for one in handshakes.silent(now):
            handshakes.remove(one)
            if not self.give_new(one.sock, one.session, one.origin, one.accepted_at):
                handshakes.put_back(one)
                return
            self._table.has_moved(one)

    def _note_woken(self, message: Waits) -> None:
        if self._context.waits is not None:
            self._context.waits.woken.append(message)

    def give_back(self, message: PassedConnection) -> None:
        """Return a connection that cannot be held, and those behind it, so that they keep their order."""
        self.to_return.append(message.number)
        self.return_unstarted()

    def return_unstarted(self) -> bool:
        """Return what the parker has given and is not being served; return whether all is returned."""
        with contextlib.suppress(EOFError):  # the main thread receives it too
            while (message := channels.receive(self._channel, self._max_state_bytes)) is not None:
                if isinstance(message, PassedConnection):
                    self.to_return.append(message.number)
                elif isinstance(message, Waits):
                    self._note_woken(message)
                channels.close_descriptor(message)
        while self.to_return and channels.send(self._channel, Returned(self.to_return[0])):
            del self.to_return[0]
        return not self.to_return


def dump(
    connection: Connection, max_bytes: int, *, has_input: bool = False
) -> ConnectionState | None:
    """Return what ``Connection.load`` wants in another process, or None: it must stay in this worker.

    Args:
        connection: It is not being served.
        max_bytes: A larger state stays.
        has_input: The client has sent something that was not read.
    """
    state = None if connection.is_bound else portable_state(connection.conversation, max_bytes)
    if state is None:
        return None
    data, at_boundary = state
    flags = channels.SERVED * connection.served + channels.PARTIAL * (not at_boundary)
    flags += channels.MORE * (connection.more or has_input)
    some = connection.beside or ([] if connection.waiting is None else [connection.waiting])
    return ConnectionState(
        flags,
        connection.deadline,
        connection.accepted_at,
        data,
        connection.cookie,
        waiting=some,
    )
