"""Connections that the server has ended: read on until the client has what was sent.

Used by workers and the parker. Without that, input that nobody read would make the kernel reset the
connection and throw away replies that are still on their way (tcp(7); RFC 2525, 2.17).
"""

from __future__ import annotations

import fcntl
import socket
import struct
import time

from attrs import define

CHUNK = 16384  # bytes of one recv(); more would cost each small request 0.7 microseconds
LONGEST = 2_000_000  # seconds that poll(2) can wait
PATIENCE = 1.0  # seconds for clients that go on sending, or are new, when the worker leaves
BREATH = 0.03  # seconds in which a client that has just read a reply sends its next request
_SIOCOUTQNSD = 0x894B  # <linux/sockios.h>
_INT = struct.Struct("i")
_LINGER = 1.0  # seconds to go on reading after the last word was ours
_QUIET = (
    0.1  # seconds without input after which a client that was not understood has stopped sending
)
_STEP = 0.01  # seconds without input after which any other has


@define
class _Last:
    """One such connection."""

    socket: socket.socket
    quiet: float  # seconds without input after which it is over
    look_at: float
    give_up_at: float


class Closing:
    """The connections that are being closed; none of these calls waits."""

    def __init__(self) -> None:
        self._all: dict[int, _Last] = {}

    def __bool__(self) -> bool:
        return bool(self._all)

    def __contains__(self, descriptor: int) -> bool:
        return descriptor in self._all

    @property
    def due(self) -> float:
        """When to look at the clock; infinite: there is none."""
        return min((last.look_at for last in self._all.values()), default=float("inf"))

    def add(self, sock: socket.socket, *, patient: bool) -> bool:
        """End our side; return whether there is more to read, else the socket is closed.

        Args:
            sock: The connection.
            patient: Whether the client may go on to send for a while.
        """
        try:
            sock.shutdown(socket.SHUT_WR)
            if _has_ended(sock):
                raise OSError
        except OSError:
            sock.close()
            return False
        now = time.monotonic()
        quiet = _QUIET if patient else _STEP
        self._all[sock.fileno()] = _Last(sock, quiet, now + quiet, now + _LINGER)
        return True

    def has_heard(self, descriptor: int) -> bool:
        """Read what has come on one of them; return whether it is over."""
        last = self._all[descriptor]
        last.look_at = min(time.monotonic() + last.quiet, last.give_up_at)
        return _has_ended(last.socket)

    def look_at_the_clock(self, now: float) -> list[int]:
        """Return the descriptors of those whose time is up."""
        over = []
        for descriptor, last in self._all.items():
            if now < last.look_at:
                continue
            if now >= last.give_up_at or not unsent_bytes(last.socket):
                over.append(descriptor)
            else:
                last.look_at = min(now + last.quiet, last.give_up_at)
        return over

    def close(self, descriptor: int) -> None:
        """Close one of them."""
        self._all.pop(descriptor).socket.close()


def _has_ended(sock: socket.socket) -> bool:
    """Read away what there is; return whether the client has ended its side."""
    try:
        while data := sock.recv(CHUNK, socket.MSG_DONTWAIT):
            if len(data) < CHUNK:
                return False
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def last_call(
    now: float, end_by: float, accepted_at: float, *, served: bool, at_boundary: bool
) -> float:
    """Return until when a client may still say something, if it is quiet from now on."""
    if not served:
        return min(accepted_at + PATIENCE, end_by)
    return min(now + BREATH, end_by) if at_boundary else end_by


def unsent_bytes(sock: socket.socket) -> int:
    """Return how many bytes the kernel has yet to send; what has left will arrive."""
    try:
        size: int = _INT.unpack(fcntl.ioctl(sock, _SIOCOUTQNSD, bytes(_INT.size)))[0]
    except OSError:  # of a unix socket, where what was sent is with the client already
        return 0
    return size
