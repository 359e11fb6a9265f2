"""The parker: holds the connections that are idle, and gives those with input to idle workers.

Runs in a process of its own, forked by the master. It runs no code of the app's, and never interprets what
a client has sent. The session and the protocol's state of a connection it keeps as bytes.
"""

from __future__ import annotations

import contextlib
import gc
import heapq
import logging
import math
import os
import resource
import select
import socket
import time

from linepool.errors import TOO_MANY_UNFINISHED
from linepool.facts import AppFacts
from linepool.ipc import channel as channels
from linepool.ipc.board import Board, ParkerView
from linepool.ipc.messages import (
    Configured,
    ConnectionState,
    Message,
    PassedConnection,
    Rejected,
    Returned,
    Stop,
    Waits,
    WakeUp,
    WantsWork,
    WorkerDied,
    WorkerStarted,
)
from linepool.ipc.waiting import Wakes
from linepool.kernel.acceptor import Accepted, Acceptor
from linepool.kernel.event_set import EventSet
from linepool.kernel.features import POLLRDHUP
from linepool.kernel.lingering import PATIENCE, LingeringClose, last_call
from linepool.kernel.listeners import Listener, listener_at
from linepool.kernel.rlimit import open_files
from linepool.kernel.sockets import (
    LONGEST_WAIT,
    address_text,
    as_connection,
    close_by_reset,
    connection_cookie,
    local_name,
    send_to,
    socket_cookie,
    unread_bytes,
)
from linepool.parker.admission import Admission
from linepool.parker.configured import configured
from linepool.parker.delivery import Delivery, WorkerProxy
from linepool.parker.waking import Waking
from linepool.settings import Settings

log = logging.getLogger("linepool")

_CONFIRM_EVERY = 0.01  # seconds between two looks whether given connections were begun
_LOOK_EVERY = 0.005  # seconds between two looks for an idle worker while a connection waits
_MESSAGES = 8  # from one worker, before the connections with input get their turn
_LAST_MESSAGES = 1024  # of a dead worker; the kernel keeps fewer, unless a child of it writes more
_SPARE_FILES = 32  # descriptors that are kept for other things than connections, at least
_UNUSED = 16  # of them, those that are not open yet
_GONE = POLLRDHUP | select.POLLHUP | select.POLLERR


class Parker:
    """The parker.

    Args:
        board: Where it sees which workers are idle, and publishes what waits.
        hub: The parker's end of its channel to the master.
        workers: The ends of the channels of the workers that exist already, by slot.
        listeners: Where it accepts: in the scheme ``dispatch`` always, otherwise when the server stops, for
            all workers may be busy.
        settings: All of them.
        app: What it must know of the app.
    """

    def __init__(
        self,
        board: Board,
        hub: socket.socket,
        workers: dict[int, socket.socket],
        listeners: list[Listener],
        settings: Settings,
        app: AppFacts,
    ) -> None:
        self._board = ParkerView(board)
        self._hub = hub
        self._settings = settings
        self._app = app
        self._admission = Admission(self._board, settings, app, listeners)
        self._parked: dict[int, ConnectionState] = {}
        self._deadlines: list[tuple[float, int]] = []  # a heap; some are out of date
        self._delivery = Delivery(self._board)
        self._held = self._delivery.held
        self._waking = Waking(self._board, self._delivery, self._unpark)
        self._channels: dict[int, WorkerProxy] = {}  # by the descriptor of the channel
        self._last_dead: WorkerProxy | None = None
        self._lingering = LingeringClose()
        self._ignores_workers = False  # because there is no room for what they hand off
        self._stop_by = 0.0  # when it ends even if clients keep sending; 0: it is not to end
        self._stopped_at = 0.0
        self._most = 0  # descriptors that connections and channels may take
        self._epoll = EventSet()
        self._epoll.register(hub, select.EPOLLIN)
        # What the app had opened before the fork is open here too.
        self._reserved = max(_SPARE_FILES, open_files() - len(workers) + _UNUSED)
        for slot, channel in workers.items():
            self._add_worker(slot, channel)
            # Of the requests that wait there only the parker before this one knew.
            channels.send(channel, Waits(0, b""))
        self._mind_the_room()
        self._listeners = list(listeners)
        self._acceptor = Acceptor(listeners, self._epoll, select.EPOLLIN)
        if not settings.parker_accepts:
            self._acceptor.stop(math.inf)

    def run(self) -> None:
        """Hold connections until the master orders a stop, or has ended."""
        gc.disable()  # there is nothing here that a collection would find, and much to look at
        try:
            while not self._is_done():
                calling = []  # listeners; they are last, so that what workers have handed off counts
                for descriptor, event in self._epoll.wait(self._pause()):
                    if listener := self._acceptor.listeners.get(descriptor):
                        calling.append(listener)
                    else:
                        self._on_event(descriptor, event)
                for listener in calling:
                    self._accept(listener)
                self._close_expired()
                self._mind_the_room()  # before workers are given what they may hand off again
                self._delivery.deliver(leaving_too=bool(self._stop_by))
                self._delivery.confirm(heard=not self._ignores_workers)
                if self._delivery.publish(len(self._parked)):
                    channels.send(self._hub, WakeUp())
        except EOFError:  # the master has ended
            for listener in self._listeners:
                listener.shut()
        self._board.leaves()

    def _on_event(self, descriptor: int, event: int) -> None:
        if descriptor in self._parked:
            self._on_input(descriptor, event)
        elif descriptor == self._hub.fileno():
            self._hear_master()
        elif descriptor in self._channels:
            self._hear_worker(self._channels[descriptor])
        elif descriptor in self._lingering and self._lingering.drain(descriptor):
            self._close_lingered(descriptor)

    def _hear_master(self) -> None:
        while message := channels.receive(self._hub):
            match message:
                case WorkerStarted(slot, channel) if self._is_news(slot, channel):
                    self._add_worker(slot, channels.end_of(channel))
                case WorkerDied(slot, begun_with, was_busy):
                    self._remove_worker(slot, begun_with, was_busy=was_busy)
                case PassedConnection(state, descriptor) if descriptor >= 0:
                    self._adopt(descriptor, state)
                case Stop():
                    self._stop()
                case Configured([file, *descriptors]):
                    self._configure(file, descriptors)
                case _:
                    channels.close_descriptor(message)

    def _configure(self, file: int, descriptors: list[int]) -> None:
        """Follow another generation's settings, and accept from its new listeners too."""
        self._app, self._settings, opened = configured(file, descriptors)
        for listener in opened:
            self._listeners.append(listener)
            self._acceptor.add(listener)
        self._admission = Admission(self._board, self._settings, self._app, self._listeners)

    def _stop(self) -> None:
        """Begin a graceful stop: accept until the master has shut the listeners."""
        for accepted in self._acceptor.last_clients():
            self._admit(accepted)
        self._waking.stop()
        self._stopped_at = time.monotonic()
        self._stop_by = self._stopped_at + PATIENCE

    def _is_news(self, slot: int, channel: int) -> bool:
        """Whether a worker's channel is here, and was not before: the master repeats itself if in doubt."""
        return channel >= 0 and slot not in self._delivery.workers

    def _add_worker(self, slot: int, channel: socket.socket) -> None:
        worker = self._delivery.add_worker(slot, channel)
        self._channels[channel.fileno()] = worker
        self._epoll.register(channel, 0 if self._ignores_workers else select.EPOLLIN)

    def _remove_worker(self, slot: int, begun_with: int, *, was_busy: bool) -> None:
        """Take over what a dead worker has handed off, and take back what it has not begun to serve."""
        worker = self._delivery.workers.get(slot)
        if worker is None:
            return
        with contextlib.suppress(EOFError):
            for _ in range(_LAST_MESSAGES):
                if (message := self._message_from(worker)) is None:
                    break
                self._obey(worker, message)
        self._stop_hearing(worker)
        topics = self._delivery.remove_worker(worker, begun_with)
        self._waking.lost(worker, topics, was_busy=was_busy)
        self._last_dead = worker

    def _adopt(self, descriptor: int, state: ConnectionState) -> None:
        """Go on with a connection of the worker that has died last, unless that had passed it already."""
        sock = socket.socket(fileno=descriptor)
        state.cookie = socket_cookie(sock)
        if self._last_dead is not None and self._last_dead.has_left(state.cookie):
            sock.close()
        elif state.flags & channels.NEW:
            with contextlib.suppress(OSError):  # the client is gone
                if listener := listener_at(local_name(sock), self._listeners):
                    self._admit((sock, sock.getpeername(), listener))
                    return
            sock.close()
        else:
            self._park(sock.detach(), state)

    def _hear_worker(self, worker: WorkerProxy) -> None:
        try:
            for _ in range(_MESSAGES):
                if not self._has_room():
                    return  # the worker keeps them meanwhile
                message = self._message_from(worker)
                if message is None:
                    return
                self._obey(worker, message)
        except EOFError:  # it is dying; the master will say when it is dead
            self._stop_hearing(worker)
        finally:
            # Behind the messages: one that found no room was told of on the board before they were read.
            if worker.board.has_missed_wakes():
                self._waking.wake_all()

    def _stop_hearing(self, worker: WorkerProxy) -> None:
        if self._channels.pop(worker.channel.fileno(), None):
            self._epoll.unregister(worker.channel)

    def _message_from(self, worker: WorkerProxy) -> Message | None:
        return channels.receive(worker.channel, self._settings.max_state_bytes)

    def _obey(self, worker: WorkerProxy, message: Message) -> None:
        """Do what a worker asks for."""
        match message:
            case PassedConnection(_, -1):
                self._drop(worker, "no descriptor left for it")
            case Rejected(why, descriptor):
                self._drop(worker, why, descriptor)
            case PassedConnection(state, descriptor):
                self._accept_from(worker, descriptor, state)
            case WantsWork():
                self._delivery.give_share(worker)
            case Returned(number):
                self._delivery.take_back(worker, number)
            case Wakes():
                self._waking.hear(worker, message)
            case Waits(number, waiting) if waiting:
                self._waking.waits_there(worker, message)
            case _:
                channels.close_descriptor(message)

    def _accept_from(self, worker: WorkerProxy, descriptor: int, state: ConnectionState) -> None:
        """Park what a worker has passed, if it is its client: a handler may have put something else there."""
        cookie = worker.passed = connection_cookie(descriptor)
        if not cookie:
            self._drop(worker, "not a connection", descriptor)
        elif state.cookie not in (0, cookie):
            self._drop(worker, "not the client's", descriptor)
        else:
            state.cookie = cookie
            state.deadline = min(state.deadline, time.monotonic() + self._admission.longest)
            if not self._held.has_room_for(state, self._settings.max_unfinished_bytes):
                session = channels.session_of(state)
                sock = as_connection(descriptor)
                self._refuse(sock, session.peer, TOO_MANY_UNFINISHED, session.listener)
            elif self._is_to_wait(state) and self._waking.wait(worker, descriptor, state.waiting):
                state.deadline = math.inf
                events = 0 if self._waking.holds_up(descriptor) else select.EPOLLIN
                self._hold(descriptor, state, _GONE | events)
            else:
                self._park(descriptor, state)

    def _is_to_wait(self, state: ConnectionState) -> bool:
        """Whether requests wait at a connection, and a worker has seen all that has come besides."""
        return bool(state.waiting) and not state.flags & channels.MORE

    def _drop(self, worker: WorkerProxy, why: str, descriptor: int = -1) -> None:
        """Note that a connection is lost because of what its worker has passed."""
        self._board.count_dropped()
        log.error("dropped what a worker passed slot=%d why=%r", worker.slot, why)
        if descriptor >= 0:
            os.close(descriptor)

    def _mind_the_room(self) -> None:
        """Warn the workers when there is little room left; stop hearing them when there is none.

        What they have handed off by then is not theirs any more, so there must be room to give it back.
        """
        self._most = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - self._reserved
        margin = min(self._most // 4, _MESSAGES * (len(self._delivery.workers) + 1))
        self._board.is_full = not self._has_room(margin)
        if self._ignores_workers == self._has_room():
            self._ignores_workers = not self._ignores_workers
            for descriptor in self._channels:
                self._epoll.modify(descriptor, 0 if self._ignores_workers else select.EPOLLIN)

    def _has_room(self, more: int = 0) -> bool:
        """Whether there are descriptors for another connection, and for some more."""
        delivery = self._delivery
        taken = len(self._parked) + len(delivery) + delivery.given + len(delivery.workers)
        return taken + more < self._most

    def _park(self, descriptor: int, state: ConnectionState) -> None:
        """Hold a connection until its client sends something; without room, pass it on as it is."""
        if state.flags & channels.MORE or state.waiting or self._board.is_full:
            self._held.add(state)
            self._delivery.queue(descriptor, state)
            return
        self._hold(descriptor, state, select.EPOLLIN | select.EPOLLRDHUP)
        heapq.heappush(self._deadlines, (state.deadline, descriptor))
        if len(self._deadlines) > 2 * len(self._parked) + 64:
            self._deadlines = [(one.deadline, fd) for fd, one in self._parked.items()]
            heapq.heapify(self._deadlines)

    def _hold(self, descriptor: int, state: ConnectionState, events: int) -> None:
        self._held.add(state)
        self._parked[descriptor] = state
        self._epoll.register(descriptor, events)

    def _unpark(self, descriptor: int) -> ConnectionState:
        # Not left to the close: the worker's copy would keep it in the kernel's list (epoll(7)).
        self._epoll.unregister(descriptor)
        return self._parked.pop(descriptor)

    def _on_input(self, descriptor: int, event: int) -> None:
        """Have a worker serve a client that has sent something; close the connection of one that left."""
        state = self._unpark(descriptor)
        if self._waking.holds_up(descriptor):  # what came behind it is not answered any more
            state.flags &= ~channels.PARTIAL
        elif not event & _GONE or unread_bytes(descriptor):
            self._waking.taken(descriptor)
            self._delivery.queue(descriptor, state)
            return
        farewell = self._waking.end(descriptor, state)
        send_to(descriptor, farewell)
        state.waiting = []
        if farewell:
            self._end(descriptor, state, needs_worker=self._needs_worker(state))
        elif self._needs_worker(state):
            self._delivery.queue(descriptor, state)
        else:
            self._held.remove(state)
            os.close(descriptor)

    def _needs_worker(self, state: ConnectionState) -> bool:
        """Whether more is to be done at the end of a connection than to close it."""
        if state.flags & channels.HEAD:
            return False
        return self._app.has_disconnect_hook or bool(state.flags & channels.PARTIAL)

    def _pause(self) -> float | None:
        """Return the seconds until there is something to do even if nothing happens; None: no limit."""
        moments = [self._lingering.due, self._waking.due]
        now = time.monotonic()
        if self._deadlines:
            moments.append(self._deadlines[0][0])
        if self._acceptor.open_at:
            moments.append(self._acceptor.open_at)
        if self._delivery and self._delivery.workers:
            moments.append(now + _LOOK_EVERY)
        if self._stop_by or self._board.is_full or self._delivery.given:
            moments.append(now + _CONFIRM_EVERY)
        due = min(moments)
        return None if due == math.inf else min(max(0.0, due - now), LONGEST_WAIT)

    def _close_expired(self) -> None:
        now = time.monotonic()
        while self._deadlines and self._deadlines[0][0] <= now:
            deadline, descriptor = heapq.heappop(self._deadlines)
            state = self._parked.get(descriptor)
            if state is not None and state.deadline == deadline:
                self._expire(descriptor, needs_worker=self._needs_worker(state))
        if self._stop_by:
            self._close_quiet(now)
        for descriptor in self._lingering.expired(now):
            self._close_lingered(descriptor)
        self._acceptor.on_timer(now)
        self._waking.look(now)

    def _close_quiet(self, now: float) -> None:
        """In a stop, close the connections whose clients have nothing more to say."""
        for descriptor, state in list(self._parked.items()):
            quiet_until = last_call(
                self._stopped_at,
                self._stop_by,
                state.accepted_at,
                served=bool(state.flags & channels.SERVED),
                at_boundary=not state.flags & channels.PARTIAL,
            )
            if now >= quiet_until:
                state.flags &= ~channels.PARTIAL  # the client gets no error for what is incomplete
                self._expire(descriptor, needs_worker=self._app.has_disconnect_hook)

    def _expire(self, descriptor: int, *, needs_worker: bool) -> None:
        """End a parked connection, or have a worker end it."""
        self._end(descriptor, self._unpark(descriptor), needs_worker=needs_worker)

    def _end(self, descriptor: int, state: ConnectionState, *, needs_worker: bool) -> None:
        if needs_worker:
            state.flags |= channels.EXPIRED
            self._delivery.queue(descriptor, state)
            return
        self._held.remove(state)
        if self._lingering.add(as_connection(descriptor), patient=False):
            self._epoll.register(descriptor, select.EPOLLIN)

    def _close_lingered(self, descriptor: int) -> None:
        self._epoll.unregister(descriptor)
        self._lingering.close(descriptor)

    def _is_done(self) -> bool:
        if not self._stop_by or self._parked or self._lingering or self._acceptor.listeners:
            return False
        # A worker that is held up may still hand off what it holds. After that look: what a dead one held
        # counts until the master has sent it.
        return self._delivery.is_settled and not unread_bytes(self._hub.fileno())

    def _accept(self, listener: Listener) -> None:
        if not self._has_room():
            self._acceptor.pause()
        elif accepted := self._acceptor.accept(listener):
            self._admit(accepted)

    def _admit(self, accepted: Accepted) -> None:
        """Park a new connection, or refuse it."""
        sock, address, listener = accepted
        if self._admission.denies(address, listener):
            close_by_reset(sock)
            return
        origin = self._admission.origin(address, listener)
        if why := self._delivery.refusal(len(self._parked), origin, self._settings):
            self._refuse(sock, address_text(address), why, listener.name)
            return
        state = self._admission.first_state(address, listener, origin)
        state.cookie = socket_cookie(sock)
        self._park(sock.detach(), state)

    def _refuse(self, sock: socket.socket, peer: str, why: str, listener: str) -> None:
        log.warning("refused a client peer=%s why=%r", peer, why)
        self._board.count_refused()
        if self._lingering.refuse(sock, self._admission.refusal(listener, why)):
            self._epoll.register(sock, select.EPOLLIN)
