"""What protocols share that keep the bytes of an unfinished request in one buffer."""

from __future__ import annotations

from linepool.protocols.base import Protocol


class Buffered(Protocol):
    """A protocol whose requests are cut out of one buffer.

    A request whose end is known before it is here (a data block) sets ``_needed``; what arrives
    until then is kept apart, so that feeding it stays linear however small the pieces are.
    """

    _buffer: bytes
    _at: int  # where in the buffer the next request begins
    _needed: int  # bytes from _at on that must be here before it is worth looking again
    _arriving: bytearray

    def start(self) -> None:
        """Set up the state of a new connection."""
        self._forget()

    def feed(self, data: bytes) -> None:
        """Take what the client sent; any cut is possible."""
        if self._needed:
            self._arriving += data
        elif self._at < len(self._buffer):
            self._buffer = self._buffer[self._at :] + data
            self._at = 0
        else:
            self._buffer = data
            self._at = 0

    @property
    def at_boundary(self) -> bool:
        """Whether nothing of a further request has arrived."""
        return self._at >= len(self._buffer)

    def _has_arrived(self) -> bool:
        """Join the parts of a data block once they are all here."""
        if len(self._buffer) - self._at + len(self._arriving) < self._needed:
            return False
        self._buffer = self._rest()
        self._at = 0
        self._arriving = bytearray()
        self._needed = 0
        return True

    def _rest(self) -> bytes:
        """Return what has arrived and belongs to no request yet."""
        return self._buffer[self._at :] + bytes(self._arriving)

    def _forget(self) -> None:
        """Drop what has arrived: nothing behind a lost place may be executed."""
        self._buffer = b""
        self._at = 0
        self._arriving = bytearray()
        self._needed = 0
