"""What workers share beside the items: counters, settings, and how much each item was used.

It is in files that each worker maps. Nothing in them has to agree with anything else, so no lock is needed to
write to them, and a worker may be killed at any moment.
"""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Iterator, MutableMapping
from typing import Literal

from linepool.cache.store import SETTINGS


class Mapped:
    """A file as an array that all processes share; it grows as needed, and never shrinks."""

    def __init__(self, path: str, count: int, code: Literal["B", "I", "Q"]) -> None:
        width = {"B": 1, "I": 4, "Q": 8}[code]
        self.file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        # A POSIX lock is released when the process that holds it dies.
        os.lockf(self.file, os.F_LOCK, 0)
        if os.fstat(self.file).st_size < count * width:
            os.ftruncate(self.file, count * width)
        os.lockf(self.file, os.F_ULOCK, 0)
        self._map = mmap.mmap(self.file, os.fstat(self.file).st_size)
        self.cells: memoryview[int] = memoryview(self._map).cast(code)

    def close(self) -> None:
        """Unmap the file."""
        self.cells.release()
        self._map.close()
        os.close(self.file)


class Counters(Mapped):
    """Counters of all workers.

    A worker adds only to its own row, so no two workers write the same counter. The row of a dead
    worker still counts; a new worker continues it.
    """

    NAMES = (
        *("cmd_get", "cmd_set", "cmd_touch", "cmd_flush", "get_hits", "get_misses", "get_expired"),
        *("get_flushed", "cas_hits", "cas_badval", "cas_misses", "incr_hits", "incr_misses"),
        *("decr_hits", "decr_misses", "delete_hits", "delete_misses", "touch_hits"),
        *("touch_misses", "store_no_memory", "total_connections"),
    )
    _ROWS = 1024
    _COLUMNS = 32  # of 8 bytes: the pid, then the counters; row 0 has the sums at the last reset

    def __init__(self, path: str) -> None:
        super().__init__(path, self._ROWS * self._COLUMNS, "Q")
        os.lockf(self.file, os.F_LOCK, 0)
        first = self._claim() * self._COLUMNS
        os.lockf(self.file, os.F_ULOCK, 0)
        self._index = {name: 1 + at for at, name in enumerate(self.NAMES)}
        self._own = {name: first + at for name, at in self._index.items()}

    def add(self, name: str, by: int = 1) -> None:
        """Add to a counter."""
        self.cells[self._own[name]] += by

    def sums(self) -> dict[str, int]:
        """Return the sum of each counter over all workers, minus its sum at the last reset."""
        totals, base = self._totals(), self.cells[: self._COLUMNS]
        return {name: totals[at] - base[at] for name, at in self._index.items()}

    def reset(self) -> None:
        """Count from 0 again."""
        for at, total in enumerate(self._totals()[1:], 1):
            self.cells[at] = total

    def workers(self) -> int:
        """Return how many workers there are."""
        return sum(1 for row in self._rows() if os.path.exists(f"/proc/{row[0]}"))

    def _rows(self) -> Iterator[list[int]]:
        """Yield the rows that workers have used; they are taken one after the other."""
        for at in range(self._COLUMNS, len(self.cells), self._COLUMNS):
            if not self.cells[at]:
                return
            yield self.cells[at : at + self._COLUMNS].tolist()

    def _totals(self) -> list[int]:
        return [sum(column) for column in zip(*self._rows(), strict=True)]

    def _claim(self) -> int:
        """Take the first row that is free or whose worker is dead; return its number."""
        for row in range(1, self._ROWS):
            pid = self.cells[row * self._COLUMNS]
            if not pid or not os.path.exists(f"/proc/{pid}"):
                self.cells[row * self._COLUMNS] = os.getpid()
                return row
        raise RuntimeError("more workers than rows of counters")


class Settings(Mapped, MutableMapping[str, int]):
    """The settings that clients may change; they begin anew with each server.

    Args:
        path: The file.
        first: The settings of a new server, where they are not those of ``SETTINGS``.
        counters: The counters, which begin anew as well.
    """

    NAMES = (*SETTINGS, "server")

    def __init__(self, path: str, first: dict[str, int], counters: Counters) -> None:
        super().__init__(path, len(self.NAMES), "Q")
        self._index = {name: at for at, name in enumerate(self.NAMES)}
        server = os.getppid()  # the master, also after a reload
        os.lockf(self.file, os.F_LOCK, 0)
        if self["server"] != server:
            self.update({**SETTINGS, **first, "server": server})
            counters.reset()
        os.lockf(self.file, os.F_ULOCK, 0)

    def __getitem__(self, name: str) -> int:
        return self.cells[self._index[name]]

    def __setitem__(self, name: str, value: int) -> None:
        self.cells[self._index[name]] = value

    def __delitem__(self, name: str) -> None:
        raise TypeError("a setting cannot be deleted")

    def __iter__(self) -> Iterator[str]:
        return iter(self.NAMES)

    def __len__(self) -> int:
        return len(self.NAMES)


def started_ticks() -> int:
    """Return when this worker's server was started, in clock ticks since the machine was."""
    with open(f"/proc/{os.getppid()}/stat", encoding="ascii", errors="replace") as file:
        return int(file.read().rpartition(")")[2].split()[19])  # proc(5): starttime


def uptime() -> int:
    """Return for how many seconds this worker's server has run."""
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    return int(now - started_ticks() / os.sysconf("SC_CLK_TCK"))


class Uses:
    """When the item of each slot was used last, and how often: what eviction goes by.

    A read writes here only, so it needs no transaction. Two workers that write the same number at the same
    time may lose one use, and a worker that reads an item while another one replaces it may note the use of
    the wrong item. That makes eviction a little less exact, and nothing else.

    Attributes:
        times: Of each slot, the Unix time in seconds of the last use.
        counts: Of each slot, the uses that still count, up to ``MOST``, and the bit ``FETCHED``.
    """

    MOST = 7
    FETCHED = 8

    def __init__(self, path: str, slots: int) -> None:
        self._times = Mapped(f"{path}.times", slots, "I")
        self._counts = Mapped(f"{path}.counts", slots, "B")
        self.times = self._times.cells
        self.counts = self._counts.cells

    def age(self, slot: int) -> None:
        """Take half of its uses from an item."""
        count = self.counts[slot]
        self.counts[slot] = (count & self.FETCHED) | (count & self.MOST) >> 1

    def close(self) -> None:
        """Unmap the files."""
        self._times.close()
        self._counts.close()
