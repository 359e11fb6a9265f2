"""The listeners of a process that waits in epoll; accepting pauses while descriptors are short.

Used by the workers of the scheme ``shared``, and by the parker in ``dispatch``.
"""

from __future__ import annotations

import logging
import select
import socket
import time
from collections.abc import Iterator

from linepool.kernel.event_set import EventSet
from linepool.kernel.listeners import Listener
from linepool.kernel.shortage import CAPACITY_ERRORS, CAPACITY_PAUSE

log = logging.getLogger("linepool")

FAILURES_AT_MOST = 3  # in a row; then a worker leaves, and descriptors that leaked go with it

Accepted = tuple[socket.socket, object, Listener]
"""A new connection, the address of its peer, and the listener that it came to."""


def is_capacity_error(error: OSError) -> bool:
    """Whether accept() failed for want of descriptors or memory; logs it if so.

    Else another process was faster, or the client left the backlog: accept(2) says to try again.
    """
    if error.errno not in CAPACITY_ERRORS:
        return False
    log.warning("cannot accept: %s; waiting %.1f s", error.strerror, CAPACITY_PAUSE)
    return True


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
    """

    def __init__(
        self, listeners: list[Listener], epoll: select.epoll | EventSet, events: int
    ) -> None:
        self.listeners = {one.socket.fileno(): one for one in listeners}
        self.open_at = 0.0
        self.failures = 0
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
            if is_capacity_error(error):
                self.pause()
            elif listener.is_shut:
                self._leave(listener)
            return None
        self.failures = 0
        return sock, address, listener

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
