"""Base of the protocols that keep the bytes of an unfinished request in one buffer."""

from __future__ import annotations

from linepool.protocols.base import Protocol

_SHORT_BYTES = 4096  # an unfinished line up to this length is searched again whenever more arrives


class Buffered(Protocol):
    """A protocol whose requests are cut out of one buffer.

    A request whose end is known before it has arrived (a data block) sets ``_needed``; bytes that
    arrive until then are collected separately, so that feeding stays linear however small the
    pieces are. So does a long line of unknown length: it calls ``_await_line``.
    """

    _buffer: bytes
    _at: int  # where in the buffer the next request begins
    _needed: int  # bytes from _at on that must arrive before the buffer is parsed again
    _needs_line: bool  # or a line feed
    _arriving: bytearray  # bytes not yet joined to the buffer

    def start(self) -> None:
        """Set up the state of a new connection."""
        self._forget()

    def feed(self, data: bytes) -> None:
        """Take bytes from the client, cut anywhere."""
        if self._needed:
            self._collect(data)
        elif self._at < len(self._buffer):
            self._buffer = self._buffer[self._at :] + data
            self._at = 0
        else:
            self._buffer = data
            self._at = 0

    @property
    def at_boundary(self) -> bool:
        """Whether no byte of a further request has arrived."""
        return self._at >= len(self._buffer)

    @property
    def unread_bytes(self) -> int:
        """How many bytes have arrived and belong to no request yet."""
        return len(self._buffer) - self._at + len(self._arriving)

    def _await_line(self, most: int) -> None:
        """Parse again once a line feed has come, or ``most`` bytes; if little has come, at any byte."""
        if len(self._buffer) - self._at > _SHORT_BYTES:
            self._needed = most
            self._needs_line = True

    def _collect(self, data: bytes) -> None:
        """Take bytes while ``_needed`` is set."""
        self._arriving += data
        if self._needs_line and b"\n" in data:
            self._needed = 1

    def _join_block(self) -> bool:
        """Join what was collected; return whether all that is needed has arrived."""
        if len(self._buffer) - self._at + len(self._arriving) < self._needed:
            return False
        self._buffer = self._unread()
        self._at = 0
        self._arriving = bytearray()
        self._needed = 0
        self._needs_line = False
        return True

    def take_unread(self) -> bytes | None:
        """Return what has arrived of the next request, and forget it; None: it must be read here."""
        if self._needed:
            return None
        unread = self._unread()
        self._forget()
        return unread

    def put_back(self, data: bytes) -> None:
        """Put bytes in front of what has arrived and belongs to no request yet."""
        data += self._unread()
        self._forget()
        self._buffer = data

    def _unread(self) -> bytes:
        """Return the bytes that have arrived and belong to no request yet."""
        return b"".join((self._buffer[self._at :], self._arriving))

    def _forget(self) -> None:
        """Drop all that has arrived: nothing after an error that closes may be executed."""
        self._buffer = b""
        self._at = 0
        self._arriving = bytearray()
        self._needed = 0
        self._needs_line = False
