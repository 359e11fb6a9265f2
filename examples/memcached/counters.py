"""Counters of all workers of a server, for ``stats``."""

from __future__ import annotations

import mmap
import os
import struct


class Counters:
    """Counters of all workers, in one file that each worker maps.

    A worker adds only to its own row, so no two workers write the same counter. The row of a dead
    worker still counts; a new worker continues it.
    """

    NAMES = (
        *("cmd_get", "cmd_set", "cmd_touch", "cmd_flush", "get_hits", "get_misses", "cas_hits"),
        *("cas_badval", "cas_misses", "incr_hits", "incr_misses", "decr_hits", "decr_misses"),
        *("delete_hits", "delete_misses", "touch_hits", "touch_misses", "total_connections"),
    )
    _ROWS = 1024
    _COLUMNS = 24  # of 8 bytes: the pid, then the counters

    def __init__(self, path: str) -> None:
        size = self._ROWS * self._COLUMNS * 8
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        # A POSIX lock is released when the process that holds it dies.
        os.lockf(self._file, os.F_LOCK, 0)
        if os.fstat(self._file).st_size < size:
            os.ftruncate(self._file, size)
        self._map = mmap.mmap(self._file, size)
        self._cells = memoryview(self._map).cast("Q")
        self._first = self._claim() * self._COLUMNS
        os.lockf(self._file, os.F_ULOCK, 0)
        self._index = {name: 1 + at for at, name in enumerate(self.NAMES)}
        self._own = {name: self._first + at for name, at in self._index.items()}

    def add(self, name: str, by: int = 1) -> None:
        """Add to a counter."""
        self._cells[self._own[name]] += by

    def sums(self) -> dict[str, int]:
        """Return the sum of each counter over all workers, minus its sum at the last reset."""
        totals = self._totals()
        base = self._cells[: self._COLUMNS]
        return {name: totals[at] - base[at] for name, at in self._index.items()}

    def reset(self) -> None:
        """Count from 0 again; the first row stores the sums of this moment."""
        self._cells[1 : self._COLUMNS] = memoryview(struct.pack("23Q", *self._totals()[1:])).cast(
            "Q"
        )

    def close(self) -> None:
        """Unmap the file."""
        self._cells.release()
        self._map.close()
        os.close(self._file)

    def _totals(self) -> list[int]:
        used = self._cells[self._COLUMNS :].tolist()
        rows = [used[at : at + self._COLUMNS] for at in range(0, len(used), self._COLUMNS)]
        claimed = [row for row in rows if row[0]]
        return [sum(column) for column in zip(*claimed, strict=True)] or [0] * self._COLUMNS

    def _claim(self) -> int:
        """Take the first row that is free or whose worker is dead; return its number."""
        for row in range(1, self._ROWS):
            pid = self._cells[row * self._COLUMNS]
            if not pid or not os.path.exists(f"/proc/{pid}"):
                self._cells[row * self._COLUMNS] = os.getpid()
                return row
        raise RuntimeError("more workers than rows of counters")
