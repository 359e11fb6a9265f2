"""The listeners of a process that waits in epoll: who comes is let in, or for a while nobody is.

Runs in the workers of the scheme ``shared``, and in the parker of ``dispatch``.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import select
import socket
import time

from linepool.kernel.listeners import Listener

log = logging.getLogger("linepool")

FULL = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS}
FULL_AT_MOST = 3  # times in a row
FULL_PAUSE = 0.1  # seconds; accept() at the limit fails at once, even with nobody waiting


class Doors:
    """Listeners in an epoll set, which tells of new clients as long as they are open.

    Args:
        listeners: There may be none.
        epoll: Where they are to be watched.
        events: What for.

    Attributes:
        listeners: By descriptor.
        open_at: When they will be opened again, on the monotonic clock; 0.0: they are open;
            infinite: never.
        full: How often in a row there was no descriptor for a client.
    """

    def __init__(self, listeners: list[Listener], epoll: select.epoll, events: int) -> None:
        self.listeners = {one.socket.fileno(): one for one in listeners}
        self.open_at = 0.0
        self.full = 0
        self._epoll = epoll
        self._events = events
        self._open()

    def accept(self, listener: Listener) -> tuple[socket.socket, object] | None:
        """Return a new connection and its peer's address; None: there is none after all.

        If that is so because there is no descriptor for it, the doors are shut for a while.
        """
        try:
            accepted = listener.accept()
        except OSError as error:
            if error.errno in FULL:
                log.warning("cannot accept: %s; waiting %.1f s", error.strerror, FULL_PAUSE)
                self.pause()
            # Else another process was faster, or the client left the queue: accept(2) says to try again.
            return None
        self.full = 0
        return accepted

    def pause(self) -> None:
        """Shut them for a while: there is no descriptor for another client."""
        self.full += 1
        self.shut(time.monotonic() + FULL_PAUSE)

    def shut(self, until: float) -> None:
        """Let nobody in before then."""
        if not self.open_at:
            for descriptor in self.listeners:
                self._epoll.unregister(descriptor)
        self.open_at = max(self.open_at, until)

    def look_at_the_clock(self, now: float) -> None:
        """Open them again if it is time to."""
        if 0 < self.open_at <= now:
            self._open()

    def abandon(self) -> None:
        """Close this process's listeners; may be called from a signal handler."""
        listeners, self.listeners = self.listeners, {}
        for descriptor, listener in listeners.items():
            with contextlib.suppress(FileNotFoundError):  # they were shut
                self._epoll.unregister(descriptor)
            listener.close()

    def _open(self) -> None:
        self.open_at = 0.0
        for descriptor in self.listeners:
            self._epoll.register(descriptor, self._events)
