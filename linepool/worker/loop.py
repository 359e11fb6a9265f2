"""The worker's loop in the schemes ``shared`` and ``dispatch``: wait, serve, look at the timers, leave.

Runs in workers. In ``shared`` the worker accepts for itself, keeps connections while they are busy, and
hands them off to the parker when they are idle, when there are too many, when other workers would serve
them sooner, and when it leaves. In ``dispatch`` it is given each by the parker and gives it back at
once. One request is served at a time; while that takes long, the evacuation thread hands off the rest.
"""

from __future__ import annotations

import logging
import math
import select
import socket
import time
from collections.abc import Callable

from linepool.core.rules import AGAIN, CLOSED, READ, STARVING_NS, WAIT, WRITE
from linepool.errors import LeaveNow
from linepool.ipc import channel as channels
from linepool.ipc.board import Order
from linepool.ipc.messages import PassedConnection
from linepool.kernel.acceptor import FAILURES_AT_MOST, Acceptor
from linepool.kernel.listeners import Listener
from linepool.kernel.sockets import is_open
from linepool.pool.status import State
from linepool.worker.admission import Admission
from linepool.worker.arrivals import Arrivals
from linepool.worker.balance import ParkPolicy, Siblings, eviction_order, share
from linepool.worker.connection import Connection
from linepool.worker.context import WorkerContext
from linepool.worker.edges import Edges
from linepool.worker.handoff import Handoff
from linepool.worker.rounds import Events, Parts, rounds_of
from linepool.worker.table import Table
from linepool.worker.waiting import WaitingRequests

log = logging.getLogger("linepool")

# Seconds between two tries of what cannot be done yet, and between two looks at the timers.
_RETRY = 0.01
_GIFTS_AT_ONCE = 16  # connections from the parker, before the other clients get their turn


class Loop:
    """The loop of one worker.

    Args:
        context: What its connections share.
        channel: The worker's end of its channel.
        listeners: Where it accepts; in ``dispatch`` none.
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
        settings = context.settings
        self._context = context
        self._board = context.board
        self._orders = context.orders
        self._edges = edges
        self._is_worn = is_worn
        park_after = settings.park_after if listeners else 0.0
        self._gives_back = not park_after  # each connection after each turn
        self._most = settings.hot_connections
        self._epoll = select.epoll()
        self._table = Table(context, self._epoll, park_after or _RETRY)
        self._handoff = Handoff(context, self._table, channel)
        admission = Admission(context)
        self._siblings = Siblings(context.board)
        self._arrivals = Arrivals(
            context, admission, self._table, self._handoff, self._siblings, self._begin
        )
        self._waits = context.waits or WaitingRequests(context.board, channel)
        self._park_policy = ParkPolicy(context.board, park_after)
        self._bans = context.board.bans
        self._seen_bans = 0
        self._left_at = 0.0  # when it began to leave; 0: it has not
        self._channel = channel
        self._has_channel = True
        self._epoll.register(channel, select.EPOLLIN)
        self._epoll.register(self._orders.wakeup, select.EPOLLIN | select.EPOLLET)
        if context.subscriptions.fileno() >= 0:
            self._epoll.register(context.subscriptions, select.EPOLLIN)
        # One worker is woken for each client, not all.
        self._acceptor = Acceptor(listeners, self._epoll, select.EPOLLIN | select.EPOLLEXCLUSIVE)
        parts = Parts(
            context,
            self._epoll,
            self._table,
            self._acceptor,
            self._handoff,
            edges,
            self._offload,
            admission,
            self._gives_back,
        )
        self._rounds = rounds_of(parts)
        self._table.await_wake = self._await_wake
        context.safe_point.evacuate = self._handoff.evacuate

    def run(self) -> None:
        """Serve until it is time to leave and the last connection is gone."""
        self._edges.tell(State.READY)
        if self._orders.is_orphaned:
            return
        try:
            while not (self._left_at and self._is_done()):
                events = self._rounds.next_events(
                    takes_work=self._takes_work(), may_wait=not self._table.again
                )
                self._serve_events(events)
                if self._table.again:
                    for connection in self._table.present(self._table.again):
                        self._serve(connection, self._rounds.again)
                self._look_around()
            self._handoff.return_unstarted()
            self._waits.tell()
        finally:
            self._table.close_all()  # of those left, if it stops at once

    @property
    def leaving_since(self) -> float:
        """When it began to leave, on the monotonic clock; 0: it has not."""
        return self._left_at

    def descriptors(self) -> list[int]:
        """Return its own descriptors, but for the listeners and connections."""
        return [self._epoll.fileno()]

    def _takes_work(self) -> bool:
        """Whether it may be given connections when it has nothing to do."""
        if self._left_at:
            return self._orders.order == Order.STOP
        return not self._acceptor.open_at  # else it has no room, or no descriptors

    def _serve_events(self, events: Events) -> None:
        """Serve each connection for which something has happened, and accept new ones."""
        connections, rounds = self._table.connections, self._rounds
        read = rounds.read
        for descriptor, _ in events:
            connection = connections.get(descriptor)
            if connection is None:
                self._on_other_event(descriptor)
            elif connection.needs == READ:
                # As _serve() does it, for the most frequent case without its call.
                if rounds.is_idle:
                    rounds.begin_work()
                try:
                    read(connection)
                except LeaveNow:
                    raise
                except BaseException:  # noqa: BLE001 - logged; it ends this connection, not the worker
                    connection.fail()
                if connection.needs != READ or self._gives_back:
                    self._after_turn(connection)
            elif connection.needs == WRITE:
                self._serve(connection, rounds.again)
            elif connection.needs == WAIT:
                self._serve(connection, Connection.leave)

    def _on_other_event(self, descriptor: int) -> None:
        if descriptor in self._acceptor.listeners:
            self._accept(self._acceptor.listeners[descriptor])
        elif descriptor == self._channel.fileno():
            self._receive()
        elif self._table.handshakes is not None and descriptor in self._table.handshakes:
            self._shake(descriptor)
        elif descriptor in self._table.heads:
            self._arrivals.read_head(descriptor, self._has_room)
        elif descriptor == self._context.subscriptions.fileno():
            self._context.subscriptions.deliver()
            for connection in self._table.present(self._table.connections):
                self._table.arrange(connection)
        else:  # it is being closed, or was handed off meanwhile
            self._table.drain(descriptor)

    def _serve(self, connection: Connection, step: Callable[[Connection], None]) -> None:
        """Have a connection take a step, and arrange what it needs then."""
        if self._rounds.is_idle:
            self._rounds.begin_work()
        _step(connection, step)
        self._after_turn(connection)

    def _after_turn(self, connection: Connection) -> None:
        """Arrange what a connection needs; in ``dispatch`` give it back, at the latest after two turns."""
        had_turn = connection.descriptor in self._table.again
        self._table.arrange(connection)
        is_done = connection.needs == READ or (connection.needs == AGAIN and had_turn)
        if self._gives_back and is_done and not self._left_at:
            self._handoff.give(connection)

    def _await_wake(self, connection: Connection) -> bool:
        """Have the request of a connection wait: in the parker, or here; return whether it is gone."""
        if self._handoff.give(connection, at_once=True):
            return True
        if connection.waiting is not None:
            self._waits.stay(connection)
        else:
            connection.rest()
        return False

    def _accept(self, listener: Listener) -> None:
        """Accept a client; the connection is handed off if there is no room for it."""
        has_room = self._has_room()
        accepted = self._acceptor.accept(listener)
        if accepted is None:
            self._after_failed_accept()
        else:
            self._arrivals.admit(accepted, has_room=has_room)

    def _has_room(self) -> bool:
        """Make room for another connection if there is none; return whether there is, or must be."""
        return self._table.active < self._most or self._make_room() or self._left_at > 0

    def _shake(self, descriptor: int) -> None:
        """Go on with a TLS handshake, and serve its connection if that is done."""
        done = self._table.shaken(descriptor, self._rounds.began_ns)
        if done is None:
            return
        connection, is_new = done
        if is_new:
            self._begin(connection)
        else:  # it has been greeted, and counted
            self._serve(connection, self._rounds.read)

    def _after_failed_accept(self) -> None:
        """If accepting pauses for want of descriptors, look when it ends; after some times, leave."""
        if self._acceptor.open_at:
            self._table.look_at(self._acceptor.open_at)
        if self._acceptor.failures >= FAILURES_AT_MOST:
            self._orders.leave()  # descriptors that leaked are closed with the process
            if self._left_at:
                self._acceptor.abandon()  # in a stop; the other workers accept what waits

    def _begin(self, connection: Connection) -> None:
        """Serve a new connection for the first time."""
        self._board.count_connection()
        self._serve_waiting(connection, Connection.begin)

    def _serve_waiting(self, connection: Connection, step: Callable[[Connection], None]) -> None:
        """Have a connection take a step that may have waited until a worker had time for it."""
        figures = self._context.figures
        since_ns, figures.since_ns = figures.since_ns, 0
        self._serve(connection, step)
        figures.since_ns = since_ns

    def _receive(self) -> None:
        """Serve the connections that the parker has given."""
        for _ in range(_GIFTS_AT_ONCE):
            try:
                message = self._handoff.receive()
            except EOFError:
                self._epoll.unregister(self._channel)
                self._has_channel = False
                self._orders.master_ended()  # neither it nor the parker has the other end
                return
            if message is None:
                return
            self._take(message)
            if not self._board.has_gifts:  # to look for more would cost a call in vain
                return

    def _take(self, message: PassedConnection) -> None:
        if message.descriptor < 0:
            log.warning("no descriptor left for a connection; given back to the parker")
            self._handoff.give_back(message)
            self._acceptor.pause()
            self._after_failed_accept()
            return
        self._acceptor.failures = 0
        self._acceptor.make_way(message.descriptor)
        connection = self._handoff.take(message)
        if connection is None:
            if message.descriptor in (self._table.handshakes or ()):
                self._shake(message.descriptor)
            return
        if self._bans.has_peer(connection.peer):
            connection.abort()
            self._table.close(connection)
            return
        flags = message.state.flags
        if flags & channels.EXPIRED:
            self._serve(connection, Connection.expire)
        elif flags & channels.NEW:
            self._begin(connection)
        else:
            again = connection.needs != READ
            self._serve_waiting(connection, self._rounds.again if again else self._rounds.read)
        if self._table.active > self._most:
            self._make_room(connection)

    def _offload(self, events: Events) -> None:
        """Hand off a part of the readable connections if idle workers would serve them sooner."""
        connections = self._table.connections
        readable = [descriptor for descriptor, _ in events if descriptor in connections]
        for descriptor in readable[: self._siblings.surplus(len(readable), self._rounds.began_ns)]:
            self._handoff.give(connections[descriptor], has_input=True)

    def _make_room(self, newcomer: Connection | None = None) -> bool:
        """Hand off the connection that has been idle longest; return whether one could be."""
        order = eviction_order(self._table.connections.values(), newcomer, time.monotonic())
        return any(self._handoff.give(connection) for connection in order)

    def _look_around(self) -> None:
        """See whether there is something to do besides the events."""
        now_ns = time.monotonic_ns()
        self._rounds.end(now_ns)
        board = self._board
        if board.ready_connections() and now_ns - board.ready_since_ns > STARVING_NS:
            self._handoff.ask_for_work(now_ns)
        held = self._table.connections
        if len(held) > 1:
            for others in self._siblings.with_time_left(now_ns):
                for connection in list(held.values())[: share(len(held), others)]:
                    self._handoff.give(connection)
        if self._bans.serial() != self._seen_bans:
            self._end_banned()
        now = now_ns / 1e9
        if self._waits.woken or now >= self._waits.tell_at:
            self._look_at_waits()
        if now >= self._table.due:
            self._on_timer(now)
        self._table.due = min(self._table.due, self._waits.tell_at)
        if self._handoff.to_return and not self._handoff.return_unstarted():
            self._table.look_at(now + _RETRY)
        if self._left_at or self._is_to_leave():
            self._leave(now)

    def _is_to_leave(self) -> bool:
        if self._acceptor.has_lost:  # the worker that takes its place has the listener again
            self._orders.leave()
        return self._orders.leaving() or self._is_worn()

    def _look_at_waits(self) -> None:
        """Have requests run again that have waited here, and tell the parker what it does not know yet."""
        for connection in self._waits.take_woken():
            self._table.arrange(connection)
        self._waits.tell()

    def _end_banned(self) -> None:
        """Close the connections of clients that have been banned."""
        self._seen_bans = self._bans.serial()
        for connection in self._table.present(self._table.connections):
            if self._bans.has_peer(connection.peer):
                connection.abort()
                self._table.close(connection)

    def _on_timer(self, now: float) -> None:
        """Park idle connections, close expired ones, and set the next time to look."""
        self._park_policy.measure(now)
        due = math.inf
        for connection in self._table.present(self._table.connections):
            park_at = self._park_policy.park_at(
                connection.quiet_since, connection.arrival.was_quiet
            )
            park_at = max(park_at, connection.arrival.stays_until)
            if park_at <= now and not self._left_at:
                if self._handoff.give(connection):
                    continue
                if not is_open(connection.descriptor):  # a handler has closed it
                    connection.abort()
                    self._table.arrange(connection)
                    continue
            connection.look_at_age(now)
            if now >= connection.deadline:
                _step(connection, Connection.expire)
                self._table.arrange(connection)
                if connection.needs == CLOSED:
                    continue
            # Not each connection at its own moment: to wake up costs more than to hand off.
            if park_at > now or not connection.is_bound:
                due = min(due, max(park_at, now + _RETRY))
            due = min(due, connection.deadline)
        if not self._left_at:
            self._handoff.give_silent(now)
        due = min(due, self._table.close_lingered(now), self._table.heads.close_expired(now))
        self._acceptor.on_timer(now)
        if self._acceptor.open_at:
            due = min(due, self._acceptor.open_at)
        self._table.due = due

    def _begin_to_leave(self, now: float) -> None:
        self._left_at = now
        for connection in self._waits.end():
            self._table.arrange(connection)
        if self._orders.order == Order.STOP:
            for accepted in self._acceptor.last_clients():
                self._arrivals.admit(accepted, has_room=True)

    def _leave(self, now: float) -> None:
        """Hand off all connections, or end them when they are quiet."""
        orders = self._orders
        orders.check_master()
        if not self._left_at:
            self._begin_to_leave(now)
        if orders.order != Order.STOP or orders.is_orphaned:
            self._acceptor.abandon()
        order = orders.order
        moving = order != Order.STOP and not orders.is_orphaned
        if moving:
            self._handoff.give_heads()
            self._handoff.give_silent()
        else:
            self._table.heads.hurry(self._left_at)
            if self._table.handshakes is not None:
                self._table.handshakes.hurry(self._left_at)
        patient = order == Order.RECYCLE or not orders.leaving()
        # Those with TLS are all bound: else each new certificate would end all connections.
        tls_is_patient = patient or now < self._left_at + self._context.settings.graceful_timeout
        for connection in self._table.present(self._table.connections):
            # Bound first: what the core has accepted has no conversation before it is asked for that.
            has_tls = connection.is_bound and connection.conversation.session.tls is not None
            if moving and (
                self._handoff.give(connection, at_once=True)
                or (tls_is_patient if has_tls else patient)
                or not connection.is_bound
            ):
                continue  # it is gone; or it stays until it ends by itself, or until it can go
            _step(connection, lambda one: one.hang_up(now, self._left_at))
            if connection.needs in (CLOSED, AGAIN):
                self._table.arrange(connection)
        self._table.look_at(now + _RETRY)

    def _is_done(self) -> bool:
        if not self._table.is_empty or self._acceptor.listeners:
            return False
        # In a stop of all workers the parker may still have clients to be served.
        gets_more = self._has_channel and self._board.has_parker
        return self._orders.order != Order.STOP or not gets_more


def _step(connection: Connection, step: Callable[[Connection], None]) -> None:
    """Have a connection take a step; an exception out of its protocol ends it, not the worker."""
    try:
        step(connection)
    except LeaveNow:
        raise
    except BaseException:  # noqa: BLE001 - logged
        connection.fail()
