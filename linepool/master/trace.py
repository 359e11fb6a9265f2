"""The trace: when a worker took a client and for how long, as ``linepool simulate`` reads it.

Runs in the master. One line per connection, ``at_s,service_s``: seconds since the start of the
recording, and seconds until the worker was idle again.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TextIO

from linepool.errors import SetupError
from linepool.pool.status import Record, State


class TraceWriter:
    """Writes a trace while the server runs.

    Raises:
        SetupError: The file cannot be written.
    """

    def __init__(self, path: str) -> None:
        self._path = os.path.abspath(path)
        try:
            self._file = self._opened("w")
        except OSError as error:
            raise SetupError(f"cannot write the recording {path}: {error.strerror}") from None
        self._began_ns = time.monotonic_ns()
        self._taken: dict[int, int] = {}

    def handed_over(self) -> tuple[dict[str, Any], list[int]]:
        """Return what another program needs to take it over, for JSON, and descriptors; it keeps them."""
        facts = {"path": self._path, "began_ns": self._began_ns, "taken": list(self._taken.items())}
        return facts, [self._file.fileno()]

    @classmethod
    def taken_over(cls, facts: Mapping[str, Any], descriptors: Sequence[int]) -> TraceWriter:
        """Return the trace that another program has handed over; the new object owns the descriptor."""
        trace = cls.__new__(cls)
        os.set_inheritable(descriptors[0], False)
        trace._file = open(descriptors[0], "a", encoding="ascii", buffering=1)  # noqa: SIM115
        trace._path, trace._began_ns = facts["path"], facts["began_ns"]
        trace._taken = dict(facts["taken"])
        return trace

    def note(self, record: Record) -> None:
        """Write what a status record completes. Pre-condition: records come in the order of their time."""
        if record.state is State.TAKEN:
            self._taken[record.slot] = record.at_ns
        elif (taken_ns := self._taken.pop(record.slot, None)) is not None:
            at_s = (taken_ns - self._began_ns) / 1e9
            self._file.write(f"{at_s:.6f},{(record.at_ns - taken_ns) / 1e9:.6f}\n")

    def reopen(self) -> str:
        """Open the path anew, because the file may have been renamed; return the path.

        Raises:
            OSError: It cannot be opened; the trace goes on in the old file.
        """
        file = self._opened("a")
        self._file.close()
        self._file = file
        return self._path

    def _opened(self, mode: Literal["w", "a"]) -> TextIO:
        # Kept open for as long as the server runs, and flushed line by line.
        file: TextIO = open(self._path, mode, encoding="ascii", buffering=1)  # noqa: SIM115
        if not file.tell():
            file.write("at_s,service_s\n")
        return file

    def close(self) -> None:
        """Close the file."""
        self._file.close()
