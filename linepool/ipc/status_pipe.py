"""The status pipe: one per worker; the worker writes records, the master drains them.

Neither ever waits for the other. Each worker has a pipe of its own, so a worker with corrupted memory
can misreport only itself.
"""

from __future__ import annotations

import contextlib
import os

from linepool.kernel.pipes import may_be_full, quick_pipe
from linepool.kernel.standard import with_high_number
from linepool.pool.status import SIZE

_READ_BYTES = 1024 * SIZE
_DRAIN_BYTES = 8 * _READ_BYTES  # at most in one drain: a worker may write without end


class StatusPipe:
    """Made by the master, which keeps one end and sends the other to the worker.

    Args:
        ends: The reader and the writer, if there is a pipe; -1: that end is in another process.
    """

    def __init__(self, ends: tuple[int, int] | None = None) -> None:
        self.reader, self.writer = ends or quick_pipe()

    @classmethod
    def of_worker(cls, writer: int) -> StatusPipe:
        """Return the pipe in its worker, from the end that has come from the master."""
        return cls((-1, with_high_number(writer)))

    def report(self, record: bytes) -> None:
        """Write one record, in the worker; if the pipe is full it is lost, and the board has the state.

        Raises:
            BrokenPipeError: The master is gone, or has given this worker up.
        """
        try:  # noqa: SIM105 - contextlib.suppress takes as long as the call itself
            os.write(self.writer, record)
        except BlockingIOError:
            pass

    def drain(self) -> bytes:
        """Return what has been written, in the master; at most 8 chunks at once."""
        data = b""
        with contextlib.suppress(BlockingIOError):
            while len(data) < _DRAIN_BYTES and (chunk := os.read(self.reader, _READ_BYTES)):
                data += chunk
                if len(chunk) < _READ_BYTES:
                    break
        return data

    def may_have_refused(self, data: bytes) -> bool:
        """Whether a record may be missing after what was drained, because the pipe was full."""
        return may_be_full(self.reader, len(data))

    def close(self) -> None:
        """Close both ends."""
        os.close(self.reader)
        os.close(self.writer)

    def keep_reader(self) -> None:
        """Close the worker's end."""
        os.close(self.writer)
        self.writer = -1
