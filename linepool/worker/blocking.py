"""The worker's loop in the scheme ``accept``: one client after another, each to its end.

Runs in workers. With one listener an idle worker waits in accept() itself, the quickest way, and the
kernel wakes the workers in turn; with several it waits in epoll, which wakes one of them for each
client. A blocking call gives up after a tick, so a quiet client delays neither an order nor the end of
the master for longer than that.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from linepool.core.rules import AGAIN, CLOSED, HANDSHAKE, READ, WAIT, WRITE
from linepool.errors import LeaveNow
from linepool.ipc.announced import announcement
from linepool.ipc.board import Order
from linepool.ipc.waiting import Why
from linepool.kernel import features
from linepool.kernel.acceptor import FAILURES_AT_MOST, Accepted, Failure, failure_of
from linepool.kernel.event_set import PollSet
from linepool.kernel.lingering import LingeringClose
from linepool.kernel.listeners import Listener, set_receive_timeout, tick
from linepool.kernel.shortage import CAPACITY_PAUSE
from linepool.kernel.sockets import DONTWAIT, LONGEST_WAIT, close_by_reset, origin_of
from linepool.pool.status import State
from linepool.session import Session
from linepool.worker.admission import Admission
from linepool.worker.connection import Connection
from linepool.worker.context import WorkerContext
from linepool.worker.core_connection import CoreConnection
from linepool.worker.edges import Edges
from linepool.worker.heads import Head, wait_for
from linepool.worker.rounds import reader_of
from linepool.worker.transport import Transport
from linepool.worker.waiting_alone import WaitingAlone

if TYPE_CHECKING:
    from linepool.session import Session
    from linepool.worker.handshakes import WaitingHandshakes
    from linepool.worker.tls import TlsTransport

_EXCLUSIVE = select.EPOLLEXCLUSIVE if features.EPOLL else 0
_LOOK_EVERY = None if features.SHUTDOWN else 0.25
"""Seconds between two looks whether a listener was shut; None: the kernel tells."""
_RETRY = 0.01  # seconds between two looks at a client that is to hang up
_PAUSE = 0.5  # seconds between two looks at a listener that a handler has ended


class BlockingLoop:
    """The loop of one worker.

    Args:
        context: What its connections share.
        channel: The worker's end of its channel, which wakes it for an order.
        listeners: Where it accepts.
        edges: Tells the master the worker's states.
        is_worn: Whether the worker may leave because it has served its number of requests.
    """

    def __init__(
        self,
        context: WorkerContext,
        channel: socket.socket,
        listeners: list[Listener],
        edges: Edges,
        is_worn: Callable[[], bool],
    ) -> None:
        self._context = context
        self._board = context.board
        self._orders = context.orders
        self._channel = channel
        self._listeners = listeners
        self._edges = edges
        self._is_worn = is_worn
        self._admission = Admission(context)
        self._waits = context.waits if isinstance(context.waits, WaitingAlone) else None
        self._serve_readable = reader_of(context)  # for the connections of all listeners
        self._handshakes: WaitingHandshakes | None = None
        if context.has_tls:
            from linepool.worker.handshakes import WaitingHandshakes  # noqa: PLC0415 - it needs ssl

            self._handshakes = WaitingHandshakes(context.board)
        blocks = len(listeners) == 1 and features.SHUTDOWN
        self._poller = None if blocks else self._open_poller()
        self._left_at = 0.0  # when it began to leave; 0: it has not
        self._backlog = (
            -1
        )  # clients of other programs' listeners still to be taken; -1: not leaving
        self._tick = tick(context.settings)

    def run(self) -> None:
        """Serve until it is time to leave and the client is gone."""
        self._edges.tell(State.READY)
        while accepted := self._next():
            self._edges.busy(time.monotonic_ns())
            self._serve(accepted)
            if self._waits is not None:
                self._waits.hear_no_more()
            if self._is_worn():
                break
            self._edges.idle(time.monotonic_ns())

    @property
    def leaving_since(self) -> float:
        """When it began to leave, on the monotonic clock; 0: it has not."""
        return self._left_at

    def descriptors(self) -> list[int]:
        """Return its own descriptors, but for the listeners and its client's."""
        return [] if self._poller is None else [self._poller.fileno()]

    def _next(self) -> Accepted | None:
        """Return the next client, or None: it is time to leave."""
        failures = 0
        while failures < FAILURES_AT_MOST and not self._is_to_leave():
            for listener in self._readable():
                try:
                    sock, address = listener.accept()
                except OSError as error:
                    match failure_of(listener, error):
                        case Failure.SHORT:
                            failures += 1
                            time.sleep(CAPACITY_PAUSE)
                        case Failure.SHUT if listener.is_shut:
                            self._forget(listener)
                        case Failure.SHUT:
                            time.sleep(_PAUSE)  # the next worker would have the same
                        case Failure.CLOSED:
                            listener.lose()
                            return None  # the worker that takes its place has it again
                        case _:  # a tick has passed, or another worker was faster
                            self._orders.check_master()
                            self._restore(listener)
                else:
                    if listener.is_unix and features.INHERITED:  # by TCP connections only
                        set_receive_timeout(sock, self._tick)
                    return sock, address, listener
        return None  # after some failures too: descriptors that leaked are closed with the process

    def _restore(self, listener: Listener) -> None:
        """Have accept() wait again if a handler has changed that, in all processes (O_NONBLOCK)."""
        if (
            self._poller is None
            and features.SHUTDOWN
            and not os.get_blocking(descriptor := listener.socket.fileno())
        ):
            os.set_blocking(descriptor, True)

    def _is_to_leave(self) -> bool:
        if not self._orders.leaving():
            return not self._listeners
        self._left_at = self._left_at or time.monotonic()
        if self._orders.order != Order.STOP or self._is_orphaned_here:
            return True
        # A listener of this program stays until the master has shut it, for then no client is left. From
        # those of others come at most as many as waited at the stop, and only while there are any, for
        # other workers take them too.
        others = [listener for listener in self._listeners if not listener.owned]
        queued = sum(listener.queue()[0] for listener in others)
        self._backlog = min(queued, self._backlog - 1) if self._backlog >= 0 else queued
        if self._backlog <= 0:
            for listener in others:
                self._forget(listener)
        return not self._listeners

    @property
    def _is_orphaned_here(self) -> bool:
        """Whether the master has ended where no process can shut the listeners of the others."""
        return not features.SHUTDOWN and self._orders.is_orphaned

    def _forget(self, listener: Listener) -> None:
        """Accept no more from a listener."""
        self._listeners = [one for one in self._listeners if one is not listener]
        if self._poller is not None:
            self._poller.unregister(listener.socket)
        listener.close()

    def _readable(self) -> list[Listener]:
        """Return the listeners on which a client may wait."""
        if self._poller is None:
            return self._listeners
        pause = _RETRY if self._backlog >= 0 else _LOOK_EVERY
        found = {descriptor for descriptor, _ in self._poller.poll(pause, 1)}
        self._hear(found)
        if not features.SHUTDOWN:  # where nothing else tells that one was shut
            return [one for one in self._listeners if one.socket.fileno() in found or one.is_shut]
        return [one for one in self._listeners if one.socket.fileno() in found]

    def _open_poller(self) -> select.epoll | PollSet:
        poller = select.epoll() if features.EPOLL else PollSet()
        for listener in self._listeners:
            poller.register(listener.socket, select.POLLIN | _EXCLUSIVE)
        for descriptor in self._order_descriptors():
            poller.register(descriptor, select.POLLIN)
        return poller

    def _order_descriptors(self) -> tuple[int, ...]:
        """Return the descriptors that are readable when there is an order."""
        return self._channel.fileno(), self._orders.wakeup, self._orders.master

    def _hear(self, ready: set[int]) -> None:
        """Read the messages away; what they say is on the board."""
        if self._channel.fileno() not in ready:
            return
        with contextlib.suppress(BlockingIOError):
            while self._channel.recv(64, DONTWAIT):
                pass
            self._orders.leave()  # the other end is closed: no order can come any more

    def _serve(self, accepted: Accepted) -> None:
        """Serve a client to the end of its connection, unless it is refused."""
        sock, accepted_at = accepted[0], time.monotonic()
        admitted = self._admit(accepted)
        if admitted is None:
            return
        session, origin = admitted
        context = self._context.of(session.listener)
        transport = self._transport(sock, session, context)
        if transport is not None:
            connection = CoreConnection(transport, session, context, accepted_at)
            if session.proxy is not None:  # for the log, should this worker be killed
                self._board.announce(0, connection.cookie, announcement(session))
            self._converse(connection, origin)

    def _converse(self, connection: Connection, origin: int) -> None:
        """Serve a connection to its end."""
        sock = connection.socket
        connection.origin = origin
        self._board.count_connection()
        self._board.holds(1)
        self._board.count_origin(origin, 1)
        try:
            self._context.figures.since_ns = 0  # it may have waited until a worker had time for it
            connection.begin(0)
            self._context.figures.since_ns = -1  # from now on it has one of its own
            while connection.needs != CLOSED:
                if connection.needs == READ:
                    self._read(connection)
                elif connection.needs == HANDSHAKE:
                    connection = self._encrypted(connection)
                elif connection.needs == WAIT:
                    self._await(connection)
                elif self._may_continue(connection):
                    connection.take_turn()
                elif time.monotonic() >= connection.deadline:
                    connection.expire()
        except LeaveNow:
            raise
        except BaseException:  # noqa: BLE001 - logged; it ends this connection, not the worker
            connection.fail()
        finally:
            self._board.idle(0, 0)
            self._board.holds(0)
            self._board.count_origin(origin, -1)
            try:
                if connection.lingers:
                    _linger(sock, patient=connection.lost_framing)
            finally:
                sock.close()
                connection.on_closed()

    def _transport(
        self, sock: socket.socket, session: Session, context: WorkerContext
    ) -> Transport | None:
        if context.settings.begins_with_tls:
            return self._shaken(sock, session, context)
        return Transport(sock, context.settings.write_timeout)

    def _shaken(
        self, sock: socket.socket, session: Session, context: WorkerContext
    ) -> TlsTransport | None:
        """Wait for a TLS handshake; return the transport, or None: the connection is closed."""
        assert self._handshakes is not None
        transport = self._handshakes.wait(sock, session, context, self._orders.hanging_up)
        if transport is None:
            _linger(sock, patient=False)
        return transport

    def _encrypted(self, connection: Connection) -> Connection:
        """Have a connection in plain text continue with TLS; return the one in its place."""
        assert self._handshakes is not None
        session = connection.conversation.session
        self._board.idle(0, 0)
        self._handshakes.empty(session)
        context = self._context.of(session.listener)
        transport = self._shaken(connection.socket, session, context)
        if transport is None:
            connection.abort(was_reset=True)
            return connection
        after = CoreConnection(transport, session, context, connection.accepted_at)
        self._handshakes.replace(connection, after, self._context.subscriptions)
        self._serve_readable(after, DONTWAIT)
        return after

    def _admit(self, accepted: Accepted) -> tuple[Session, int] | None:
        """Return session and origin of a new client, once its PROXY header has come; None: it is refused."""
        sock, address, listener = accepted
        if self._admission.denies(address, listener.name):
            close_by_reset(sock)
            return None
        session = self._admission.session(address, listener)
        context = self._context.of(listener.name)
        if context.gate.has_proxies:
            head = Head.of(sock, session, time.monotonic(), context.settings)
            if not wait_for(head, self._orders.hanging_up):
                return None
            address = head.address
            if self._admission.denies(address, listener.name, is_announced=True):
                close_by_reset(sock)
                return None
        origin = origin_of(address)
        if reply := self._admission.refusal(address, origin, listener.name):
            _refuse(sock, None if context.settings.begins_with_tls else reply)
            return None
        return session, origin

    def _read(self, connection: Connection) -> None:
        """Wait for the client, and serve what it sends; end the connection when its time is up."""
        if self._orders.hanging_up():
            self._hang_up(connection)
            return
        if self._board.bans.has_peer(connection.peer):
            connection.abort()
            return
        connection.look_at_age(connection.quiet_since)
        if not connection.read_by and not self._context.subscriptions.topics(connection):
            # A blocking recv() takes one system call where poll() and recv() take two.
            served_at = connection.quiet_since
            self._serve_readable(connection, 0)
            if connection.needs != READ or connection.quiet_since != served_at:
                return
        deadline = connection.deadline
        is_readable = self._wait(connection, select.POLLIN, deadline)
        if connection.needs != READ:
            return  # a message was delivered, and the client does not keep up
        if is_readable:
            self._serve_readable(connection, DONTWAIT)
        elif time.monotonic() >= deadline:
            connection.expire()

    def _await(self, connection: Connection) -> None:
        """Wait with a request until its handler is to be run again."""
        assert self._waits is not None
        assert connection.waiting is not None
        if self._orders.hanging_up():
            connection.waiting.why = Why.STOPPING
            connection.resume(connection.waiting, 0)
        elif self._waits.wait(connection, self._order_descriptors()):
            self._hear({self._channel.fileno()})

    def _may_continue(self, connection: Connection) -> bool:
        """Wait until a connection can take a turn; return whether it can."""
        is_leaving = self._orders.hanging_up()
        until = connection.deadline
        if is_leaving:
            until = min(until, self._say_leaving(connection) + _RETRY)
        if connection.needs != WRITE:
            return connection.needs == AGAIN
        return self._wait(connection, select.POLLOUT, until, orders=not is_leaving)

    def _say_leaving(self, connection: Connection) -> float:
        """Have a connection end if it is time to; return the present."""
        now = time.monotonic()
        self._left_at = self._left_at or now
        connection.hang_up(now, self._left_at)
        return now

    def _hang_up(self, connection: Connection) -> None:
        """Serve what the client still sends though it is time to end, or end its connection."""
        now = self._say_leaving(connection)
        if connection.needs != READ:
            return
        is_readable = self._wait(connection, select.POLLIN, now + _RETRY, orders=False)
        if is_readable and connection.needs == READ:
            self._serve_readable(connection, DONTWAIT)

    def _wait(
        self, connection: Connection, events: int, until: float, *, orders: bool = True
    ) -> bool:
        """Wait for the client, an order or a message; return whether it is the client.

        Args:
            connection: The client's.
            events: For which to wait, as for poll(2).
            until: How long, on the monotonic clock in seconds.
            orders: Whether an order ends the wait: once it is known, it would at once.
        """
        poller = select.poll()
        poller.register(connection.socket, events)
        if orders:
            for descriptor in self._order_descriptors():
                poller.register(descriptor, select.POLLIN)
        subscriptions = self._context.subscriptions
        if subscriptions.topics(connection):
            poller.register(subscriptions, select.POLLIN)
        seconds = max(0.0, min(until - time.monotonic(), LONGEST_WAIT))
        ready = {descriptor for descriptor, _ in poller.poll(seconds * 1000)}
        self._hear(ready)
        if subscriptions.fileno() in ready:
            subscriptions.deliver()
        return connection.descriptor in ready


def _refuse(sock: socket.socket, reply: bytes | None) -> None:
    """Send a reply to a client that is not served, and close its connection; it holds the worker briefly.

    ``reply``: None: the client could not read any; its connection is reset.
    """
    with sock, contextlib.suppress(OSError):
        if reply is None:
            close_by_reset(sock)
            return
        sock.send(reply, DONTWAIT)
        _linger(sock, patient=False)


def _linger(sock: socket.socket, *, patient: bool) -> None:
    """Close a connection when the client has what was sent."""
    lingering = LingeringClose()
    descriptor = sock.fileno()
    if not lingering.add(sock, patient=patient):
        return
    poller = select.poll()
    poller.register(sock, select.POLLIN)
    while lingering:
        seconds = max(0.0, lingering.due - time.monotonic())
        is_readable = bool(poller.poll(seconds * 1000))
        if (is_readable and lingering.drain(descriptor)) or lingering.expired(time.monotonic()):
            lingering.close(descriptor)
