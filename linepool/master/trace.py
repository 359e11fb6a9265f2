"""The trace: when a worker took a client and for how long, as ``linepool simulate`` reads it.

Runs in the master. One line per connection, ``at_s,service_s``: seconds since the start of the
recording, and seconds until the worker was idle again.
"""

from __future__ import annotations

import time
from typing import TextIO

from linepool.errors import SetupError
from linepool.pool.status import Record, State


class TraceWriter:
    """Writes a trace while the server runs.

    Raises:
        SetupError: The file cannot be written.
    """

    def __init__(self, path: str) -> None:
        try:
            # Kept open for as long as the server runs, and flushed line by line.
            self._file: TextIO = open(path, "w", encoding="ascii", buffering=1)  # noqa: SIM115
        except OSError as error:
            raise SetupError(f"cannot write the recording {path}: {error.strerror}") from None
        self._file.write("at_s,service_s\n")
        self._began_ns = time.monotonic_ns()
        self._taken: dict[int, int] = {}

    def note(self, record: Record) -> None:
        """Write what a status record completes. Pre-condition: records come in the order of their time."""
        if record.state is State.TAKEN:
            self._taken[record.slot] = record.at_ns
        elif (taken_ns := self._taken.pop(record.slot, None)) is not None:
            at_s = (taken_ns - self._began_ns) / 1e9
            self._file.write(f"{at_s:.6f},{(record.at_ns - taken_ns) / 1e9:.6f}\n")

    def close(self) -> None:
        """Close the file."""
        self._file.close()
