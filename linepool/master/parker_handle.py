"""Parking, the master's part: it forks the parker, tells it who comes and goes, and replaces it.

Runs in the master, and in each new parker until that begins.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import os
import selectors
import signal
import socket
import time
from collections import deque
from collections.abc import Callable, Mapping

from linepool.conversation import Service
from linepool.ipc import channel as passing
from linepool.ipc.board import PARKED, PARKER, WAITING, WAITS_SINCE_NS, Board
from linepool.ipc.channel import Baggage, Kind
from linepool.kernel.listeners import Listener, show
from linepool.kernel.pidfd import Process, signal_name
from linepool.kernel.signals import signals_blocked
from linepool.master.worker_handle import Child
from linepool.parker.parker import Manners, Parker
from linepool.session import Session
from linepool.settings import Settings

log = logging.getLogger("linepool")

_DEAF_TO = (
    signal.SIGTERM,  # a supervisor may send it to every process of the server
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGTTIN,
    signal.SIGTTOU,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
_QUICK = 1.0  # seconds; a parker that lived shorter has a fault that the next may have too
_PAUSE = 0.1  # seconds before the next one then; grows by half each time
_LONGEST_PAUSE = 5.0
_STEP = 0.01  # seconds between two tries to tell the parker what its channel has no room for

Letter = tuple[Kind, int, Baggage, list[int]]


class Parking:
    """The parker's process, and the master's channel to it.

    Args:
        leave: Called in each new parker: closes its copies of what is the master's, but for the
            workers' channels.

    Attributes:
        dropped: How many connections ended with a parker that died.
    """

    def __init__(
        self,
        board: Board,
        service: Service,
        settings: Settings,
        listeners: list[Listener],
        children: Mapping[int, Child],
        selector: selectors.BaseSelector,
        leave: Callable[[], None],
    ) -> None:
        self.dropped = 0
        self._board = board
        self._head = board.head
        self._settings = settings
        self._listeners = listeners
        self._children = children
        self._selector = selector
        self._leave = leave
        self._master = os.getpid()
        self._process: Process | None = None
        self._hub: socket.socket | None = None
        self._letters: deque[Letter] = deque()  # that the parker has not taken yet
        self._start_at = 0.0  # when the next parker is forked; infinite: there is one
        self._born_at = 0.0
        self._pause = _PAUSE
        self._stopping = False
        self._numbers = itertools.count(1)
        self._manners = Manners(
            busy=service.busy_reply(),
            greets=service.greets,
            mourns=bool(service.on_disconnect),
        )

    @property
    def parked(self) -> int:
        """How many connections the parker holds."""
        return int(self._head[PARKED])

    @property
    def waiting(self) -> int:
        """How many of them have said something and wait for a worker."""
        return int(self._head[WAITING])

    @property
    def due_at(self) -> float:
        """When there is something to do, on the monotonic clock."""
        return time.monotonic() + _STEP if self._letters and self._hub else self._start_at

    def turn(self) -> None:
        """Fork a parker if it is time to, and send what it has not taken yet."""
        if time.monotonic() >= self._start_at:
            self._start_at = math.inf
            self._start()
        while self._letters and self._send(self._letters[0]):
            passing.close(self._letters.popleft()[3])

    def hired(self, slot: int, child: Child) -> None:
        """Tell the parker of a new worker."""
        self._tell(Kind.HIRED, slot, descriptors=[os.dup(child.channel.fileno())])

    def died(self, slot: int, begun: int) -> None:
        """Tell the parker that a worker is dead, and the number of the last it had begun with."""
        self._tell(Kind.DEAD, slot, Baggage(0, 0.0, 0.0, state=b"%d" % begun))

    def adopt(self, sock: socket.socket, since: float) -> None:
        """Give the parker a connection whose worker was killed while it served another one.

        Args:
            sock: Taken over.
            since: When its client may have been served last.
        """
        session = Session(f"{self._master}-{next(self._numbers)}", _peer(sock), self._name_of(sock))
        deadline = since + self._settings.idle_timeout
        state = passing.packed(session.dump(), b"")
        baggage = Baggage(passing.SERVED, deadline, since, state=state)
        self._tell(Kind.CONNECTION, 0, baggage, [sock.detach()])

    def stop(self, *, graceful: bool) -> None:
        """Have the parker end, when no client has anything more to say or at once."""
        self._stopping = True
        self._start_at = math.inf
        if self._process is None:
            self._head[PARKER] = 0
        elif graceful:
            self._tell(Kind.STOP, 0)
        else:
            self._process.send(signal.SIGKILL)

    def close(self) -> None:
        """End the parker and give everything back, in the master."""
        self._stopping = True
        if self._process is not None:
            self._process.send(signal.SIGKILL)
            self._process.is_dead(_QUICK)
            self._process.reap()
        self.abandon()

    def abandon(self) -> None:
        """Close this process's copies of everything, also in a new worker."""
        if self._process is not None:
            self._process.close()
        if self._hub is not None:
            self._hub.close()
        self._drop_letters()

    # Inside.

    def _drop_letters(self) -> None:
        """Close this process's copies of what the parker has not taken yet."""
        while self._letters:
            passing.close(self._letters.popleft()[3])

    def _tell(
        self,
        kind: Kind,
        number: int,
        baggage: Baggage | None = None,
        descriptors: list[int] | None = None,
    ) -> None:
        if self._process is None and kind is not Kind.CONNECTION:
            passing.close(descriptors or [])
            return  # the next parker begins with what is so then
        self._letters.append((kind, number, baggage or Baggage(0, 0.0, 0.0), descriptors or []))
        self.turn()

    def _send(self, letter: Letter) -> bool:
        kind, number, baggage, descriptors = letter
        return self._hub is not None and passing.send(
            self._hub, kind, number, baggage, tuple(descriptors)
        )

    def _start(self) -> None:
        """Fork a parker; if that cannot be, try again later."""
        try:
            ours, theirs = passing.pair()
        except OSError as error:
            self._try_again(error)
            return
        with theirs, contextlib.ExitStack() as undo:
            undo.callback(ours.close)
            self._head[PARKED] = self._head[WAITING] = self._head[WAITS_SINCE_NS] = 0
            # What was given and not begun is in the workers' channels, or was lost with the parker.
            try:
                with signals_blocked():
                    pid = os.fork()
                    if pid == 0:
                        ours.close()
                        self._become_parker(theirs)
                self._process = Process(pid)
            except OSError as error:
                self._try_again(error)
                return
            undo.pop_all()
        self._hub = ours
        self._born_at = time.monotonic()
        self._head[PARKER] = 1
        self._selector.register(self._process.pidfd, selectors.EVENT_READ, self._bury)
        self._selector.register(ours, selectors.EVENT_READ, self._hear)

    def _try_again(self, error: OSError) -> None:
        log.error("cannot fork the parker: %s", error.strerror)
        self._start_at = time.monotonic() + self._next_pause()

    def _next_pause(self) -> float:
        pause, self._pause = self._pause, min(1.5 * self._pause, _LONGEST_PAUSE)
        return pause

    def _hear(self) -> None:
        """Read the parker's bell away: that it has rung has ended the master's sleep."""
        if self._hub is not None:  # else its end was noted in the same turn
            with contextlib.suppress(OSError):
                self._hub.recv(64, socket.MSG_DONTWAIT)

    def _bury(self) -> None:
        """Take note of the parker's end."""
        assert self._process is not None
        assert self._hub is not None
        status = self._process.reap()
        if status is None:
            return
        self._selector.unregister(self._process.pidfd)
        self._selector.unregister(self._hub)
        self._process.close()
        self._hub.close()
        self._process = self._hub = None
        lost, self._head[PARKER] = self.parked, 0
        self._head[PARKED] = self._head[WAITING] = 0
        kept = [letter for letter in self._letters if letter[0] is Kind.CONNECTION]
        for letter in self._letters:
            if letter[0] is not Kind.CONNECTION:
                passing.close(letter[3])
        self._letters = deque(kept)
        if self._stopping:
            for child in self._children.values():
                child.ring()
            return
        self.dropped += lost
        how = f"status={status}" if status >= 0 else f"signal={signal_name(-status)}"
        log.error("parker died %s connections=%d; another one is started", how, lost)
        now = time.monotonic()
        if now - self._born_at < _QUICK:
            self._start_at = now + self._next_pause()
        else:
            self._pause = _PAUSE
            self._start_at = now

    def _become_parker(self, hub: socket.socket) -> None:
        """Turn the new process into a parker, to its end."""
        status = 1
        try:
            self._leave()
            self._drop_letters()
            os.setpgid(0, 0)  # ^C at the terminal is meant for the master
            for number in _DEAF_TO:  # the master says when it is time to end, or its end does
                signal.signal(number, signal.SIG_IGN)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals())
            listeners = self._listeners if self._settings.scheme == "dispatch" else []
            if not listeners:
                for listener in self._listeners:
                    listener.close()
            channels = {slot: child.channel for slot, child in self._children.items()}
            if os.getppid() == self._master:
                parker = Parker(
                    self._board, hub, channels, listeners, self._settings, self._manners
                )
                parker.run()
            status = 0
        except BaseException:
            log.exception("parker failed pid=%d", os.getpid())
        finally:
            os._exit(status)

    def _name_of(self, sock: socket.socket) -> str:
        """Return the name of the listener that a connection came to."""
        with contextlib.suppress(OSError):
            address = sock.getsockname()
            name = f"unix:{address}" if isinstance(address, str) else show(address)
            port = name.rpartition(":")[2]  # all that is known behind a bind to any address
            for listener in self._listeners:
                if listener.name == name or listener.name.rpartition(":")[2] == port:
                    return listener.name
        return self._listeners[0].name


def _peer(sock: socket.socket) -> str:
    with contextlib.suppress(OSError):
        return show(sock.getpeername())
    return "-"
