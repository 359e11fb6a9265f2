"""The end of a connection: how long to wait for the client's last words, and the lingering close.

Used by workers, the parker and the master. If a server closes a connection with input unread, the
kernel resets it and discards replies that are still on their way (tcp(7); RFC 2525, 2.17). So the
server ends its side, and reads until the client has what was sent.
"""

from __future__ import annotations

import socket
import time

from attrs import define

from linepool.kernel.sockets import CHUNK, DONTWAIT, close_by_reset, unsent_bytes

PATIENCE = 1.0  # seconds for clients that keep sending, or are new, when their process leaves
_NEXT_REQUEST = 0.03  # seconds in which a client that has just read a reply sends its next request
_LONGEST = 1.0  # seconds to read on after the server has ended its side
_PATIENT_QUIET = 0.1  # seconds without input after which a client that keeps sending has stopped
_QUIET = 0.01  # seconds without input after which any other client has stopped


@define
class _Ending:
    """One such connection.

    Attributes:
        quiet: Seconds without input after which it is over.
        look_at: When to look at it again.
        give_up_at: When it is closed in any case.
    """

    socket: socket.socket
    quiet: float
    look_at: float
    give_up_at: float


class LingeringClose:
    """The connections that are being closed; none of these calls waits."""

    def __init__(self) -> None:
        self._endings: dict[int, _Ending] = {}

    def __bool__(self) -> bool:
        return bool(self._endings)

    def __contains__(self, descriptor: int) -> bool:
        return descriptor in self._endings

    @property
    def due(self) -> float:
        """When ``expired`` is to be asked, on the monotonic clock; infinite: never."""
        return min((one.look_at for one in self._endings.values()), default=float("inf"))

    def add(self, sock: socket.socket, *, patient: bool) -> bool:
        """End the server's side; return whether there is more to read, else the socket is closed.

        Args:
            sock: The connection; the caller watches it for input.
            patient: Whether the client may keep sending for a while.
        """
        try:
            sock.shutdown(socket.SHUT_WR)
            if _read_away(sock):
                raise OSError
        except OSError:
            sock.close()
            return False
        now = time.monotonic()
        quiet = _PATIENT_QUIET if patient else _QUIET
        self._endings[sock.fileno()] = _Ending(sock, quiet, now + quiet, now + _LONGEST)
        return True

    def refuse(self, sock: socket.socket, reply: bytes | None) -> bool:
        """Send a reply to a client that is not served; then as ``add``.

        ``reply``: None: the client could not read any; its connection is reset.
        """
        if reply is None:
            close_by_reset(sock)
            return False
        try:
            sock.send(reply, DONTWAIT)
        except OSError:
            sock.close()
            return False
        return self.add(sock, patient=True)

    def drain(self, descriptor: int) -> bool:
        """Read away what has arrived on one of them; return whether the client has ended its side."""
        ending = self._endings[descriptor]
        ending.look_at = min(time.monotonic() + ending.quiet, ending.give_up_at)
        return _read_away(ending.socket)

    def expired(self, now: float) -> list[int]:
        """Return the descriptors of those that are to be closed now."""
        over = []
        for descriptor, ending in self._endings.items():
            if now < ending.look_at:
                continue
            if now >= ending.give_up_at or not unsent_bytes(ending.socket):
                over.append(descriptor)
            else:
                ending.look_at = min(now + ending.quiet, ending.give_up_at)
        return over

    def close(self, descriptor: int) -> None:
        """Close one of them."""
        self._endings.pop(descriptor).socket.close()


def _read_away(sock: socket.socket) -> bool:
    """Read away what has arrived; return whether the client has ended its side."""
    try:
        while data := sock.recv(CHUNK, DONTWAIT):
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
    """Return until when to wait for a client that is quiet from now on, though it is time to end.

    A client that has just connected, or has just read a reply, may have sent a request that is not
    here yet; to close now would lose it. One that keeps sending is cut off at ``end_by``, but a client that
    was accepted later has as long as the others.

    Args:
        now: The present, on the monotonic clock, in seconds, as all times here.
        end_by: When to end it in any case.
        accepted_at: When it was accepted.
        served: A request of it has been answered.
        at_boundary: No part of a further request has arrived.
    """
    end_by = max(end_by, accepted_at + PATIENCE)
    if not served:
        return accepted_at + PATIENCE
    return min(now + _NEXT_REQUEST, end_by) if at_boundary else end_by
