"""The status pipe: one for each worker; the worker writes records, the master drains them.

Neither ever waits for the other. Each worker has a pipe of its own, so whatever a mad one writes can
only be about itself.
"""

from __future__ import annotations

import contextlib
import os

from linepool.pool.status import SIZE

_CHUNK = 1024 * SIZE
_MOST = 8 * _CHUNK
PIPE_FULL = 64 * 1024 - 4096
"""Bytes; a pipe that holds more may have refused a record (pipe(7): 64 KiB, in pages)."""


class StatusPipe:
    """Made by the master before the fork; each side then closes the end it does not use."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def report(self, record: bytes) -> None:
        """Write one record, in the worker; if the pipe is full it is lost, and the board knows.

        Raises:
            BrokenPipeError: The master is gone.
        """
        try:  # noqa: SIM105 - what it proposes takes as long as the call itself
            os.write(self.writer, record)
        except BlockingIOError:
            pass

    def drain(self) -> bytes:
        """Return all that waits, in the master; of a worker that writes without end, a part."""
        data = b""
        with contextlib.suppress(BlockingIOError):
            while len(data) < _MOST and (chunk := os.read(self.reader, _CHUNK)):
                data += chunk
                if len(chunk) < _CHUNK:
                    break
        return data

    def close(self) -> None:
        """Close both ends."""
        os.close(self.reader)
        os.close(self.writer)

    def keep_reader(self) -> None:
        """Close the end that only the worker uses."""
        os.close(self.writer)

    def keep_writer(self) -> None:
        """Close the end that only the master uses."""
        os.close(self.reader)
