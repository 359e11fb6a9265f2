"""Counters that all workers add to and any of them can sum up.

They stand in anonymous shared memory that is made before the first fork: no file, no name, nothing
to clean up. Each worker has a row of its own, so adding needs no lock; a worker that dies leaves its
row, counts and all, to the next one.
"""

import mmap
import os
from collections.abc import Sequence

ROWS = 2048  # more than there can be workers
_OWNER, _CONNECTIONS, _FIRST = 0, 1, 2  # words of a row


class SharedCounters:
    """Counters by name, whole numbers from 0 on.

    Row 0 belongs to nobody: it holds how many rows have been in use, and what the counters were when
    they were set to 0.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._columns = {name: column for column, name in enumerate(names, _FIRST)}
        self._width = _FIRST + len(names)
        self._words = memoryview(mmap.mmap(-1, ROWS * self._width * 8)).cast("Q")
        self._row = 0

    def claim(self) -> None:
        """Take a row for this process. The caller holds a lock against other claims."""
        words = self._words
        for row in range(1, ROWS):
            if not _is_alive(words[row * self._width + _OWNER]):
                break
        else:
            raise RuntimeError(f"there can be no more than {ROWS - 1} workers")
        self._row = row * self._width
        words[self._row + _CONNECTIONS] = 0
        words[self._row + _OWNER] = os.getpid()
        words[0] = max(words[0], row)

    def add(self, name: str, by: int = 1) -> None:
        """Add to a counter in this process's row; a name that is not known is not counted."""
        column = self._columns.get(name)
        if column is not None:
            self._words[self._row + column] += by

    def connected(self, by: int) -> None:
        """Add to the number of connections that this process has now."""
        self._words[self._row + _CONNECTIONS] += by

    def totals(self) -> dict[str, int]:
        """Return every counter, summed over all workers that there are or have been."""
        return {
            name: self._sum(column) - self._words[column] for name, column in self._columns.items()
        }

    def reset(self) -> None:
        """Set all counters to 0. The caller holds a lock against other resets."""
        for column in self._columns.values():
            self._words[column] = self._sum(column)

    def living(self) -> tuple[int, int]:
        """Return how many workers there are, and how many connections they have."""
        rows = range(self._width, self._end, self._width)
        alive = [row for row in rows if _is_alive(self._words[row + _OWNER])]
        return len(alive), sum(self._words[row + _CONNECTIONS] for row in alive)

    @property
    def _end(self) -> int:
        return (self._words[0] + 1) * self._width

    def _sum(self, column: int) -> int:
        return sum(self._words[self._width + column : self._end : self._width])


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # a stranger that has the pid now; another row will do
        return True
    return pid != 0  # kill(0, ...) would mean our own process group
