"""The listeners of a process that waits in epoll; accepting pauses while descriptors are short.

Used by the workers of the scheme ``shared``, and by the parker in ``dispatch``.
"""

from __future__ import annotations

import errno
import logging
import select
import socket
import time
from collections.abc import Iterator
from enum import Enum

from linepool.kernel.event_set import EventSet
from linepool.kernel.listeners import Listener
from linepool.kernel.shortage import CAPACITY_ERRORS, CAPACITY_PAUSE

log = logging.getLogger("linepool")

FAILURES_AT_MOST = 3  # in a row; then a worker leaves, and descriptors that leaked go with it

_UNUSABLE = {errno.EBADF, errno.EINVAL, errno.ENOTSOCK, errno.EOPNOTSUPP}

Accepted = tuple[socket.socket, object, Listener]
"""A new connection, the address of its peer, and the listener that it came to."""


class Failure(Enum):
    """Why accept() returned no client."""

    NONE = 0
    """Another process was faster, or the client left the backlog: accept(2) says to try again."""
    SHORT = 1
    """There is no descriptor, or no memory, for another client."""
    SHUT = 2
    """The listener has ended in all processes."""
    CLOSED = 3
    """A handler has closed this process's copy of the listener: another process is to take its place."""


def failure_of(listener: Listener, error: OSError) -> Failure:
    """Return why accept() failed; what should not be is logged.

    A listener that a handler has shut, for all processes, listens again afterwards, if it can.
    """
    if error.errno in CAPACITY_ERRORS:
        log.warning("cannot accept: %s; waiting %.1f s", error.strerror, CAPACITY_PAUSE)
        return Failure.SHORT
    if listener.is_shut:
        return Failure.SHUT
    # A unix socket that was shut may say EAGAIN, as if it only had no client.
    if listener.is_ending or not (error.errno in _UNUSABLE or listener.is_unix):
        return Failure.NONE
    if not listener.is_here:
        log.error("a handler has closed the descriptor of a listener address=%s", listener.name)
        return Failure.CLOSED
    if listener.listens:  # or again, by another process
        return Failure.NONE
    if listener.reopen():
        log.error("a handler has shut a listener; it is open again address=%s", listener.name)
        return Failure.NONE
    log.error("a handler has shut a listener; start the server again address=%s", listener.name)
    return Failure.SHUT


class Acceptor:
    """Listeners in an epoll set, which reports new clients while they are open.

    Args:
        listeners: There may be none.
        epoll: Where they are registered.
        events: The events to register them for.

    Attributes:
        listeners: By descriptor.
        open_at: When accepting begins again, on the monotonic clock; 0.0: it has not stopped;
            infinite: never.
        failures: How many times in a row there was no descriptor for a client.
        has_lost: Handlers have closed the descriptor of a listener.
    """

    def __init__(
        self, listeners: list[Listener], epoll: select.epoll | EventSet, events: int
    ) -> None:
        self.listeners = {one.socket.fileno(): one for one in listeners}
        self.open_at = 0.0
        self.failures = 0
        self.has_lost = False
        self._epoll = epoll
        self._events = events
        self._open()

    def add(self, listener: Listener) -> None:
        """Accept from another listener too."""
        self.listeners[listener.socket.fileno()] = listener
        if not self.open_at:
            self._epoll.register(listener.socket.fileno(), self._events)

    def accept(self, listener: Listener) -> Accepted | None:
        """Return a new connection; None: there is none after all.

        If that is so because there is no descriptor for it, accepting pauses.
        """
        try:
            sock, address = listener.accept()
        except OSError as error:
            match failure_of(listener, error):
                case Failure.SHORT:
                    self.pause()
                case Failure.SHUT:
                    self._leave(listener)
                case Failure.CLOSED:
                    self._lose(listener)
                case Failure.NONE:
                    pass
            return None
        self.failures = 0
        self.make_way(sock.fileno())
        return sock, address, listener

    def make_way(self, descriptor: int) -> None:
        """Note that a descriptor is a client's: a listener that had the number was closed by a handler."""
        if listener := self.listeners.get(descriptor):
            log.error("a handler has closed the descriptor of a listener address=%s", listener.name)
            self._lose(listener)

    def _lose(self, listener: Listener) -> None:
        """Forget a listener whose descriptor is not its own any more.

        As long as this process lives, its epoll set reports events of it: only the descriptor could end that.
        """
        del self.listeners[listener.socket.fileno()]
        listener.lose()
        self.has_lost = True

    def last_clients(self) -> Iterator[Accepted]:
        """Leave the listeners because the server stops; yield the clients that cannot be left to others.

        Those of this program stay until the master has shut them, for then there are no more clients.
        Those that another program owns are left at once: only clients that wait now are yielded.
        """
        self.resume()
        for listener in [one for one in self.listeners.values() if not one.owned]:
            for _ in range(listener.queue()[0]):
                if accepted := self.accept(listener):
                    yield accepted
            self._leave(listener)

    def pause(self) -> None:
        """Stop accepting for a while, because there is no descriptor for another client."""
        self.failures += 1
        self.stop(time.monotonic() + CAPACITY_PAUSE)

    def stop(self, until: float) -> None:
        """Stop accepting until a moment on the monotonic clock."""
        if not self.open_at:
            for descriptor in self.listeners:
                self._epoll.unregister(descriptor)
        self.open_at = max(self.open_at, until)

    def resume(self) -> None:
        """Accept again."""
        if self.open_at:
            self._open()

    def on_timer(self, now: float) -> None:
        """Accept again if it is time to."""
        if 0 < self.open_at <= now:
            self._open()

    def abandon(self) -> None:
        """Close this process's copies of the listeners."""
        for listener in list(self.listeners.values()):
            self._leave(listener)

    def _leave(self, listener: Listener) -> None:
        descriptor = listener.socket.fileno()
        del self.listeners[descriptor]
        if not self.open_at:
            self._epoll.unregister(descriptor)
        listener.close()

    def _open(self) -> None:
        self.open_at = 0.0
        for descriptor in self.listeners:
            self._epoll.register(descriptor, self._events)
