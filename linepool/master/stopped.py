"""Child processes that are stopped (SIGSTOP and the like), and for how long.

Runs in the master. The kernel sends SIGCHLD when a child stops or continues, so nothing is polled. A process
that a debugger has stopped is not reported to its parent (ptrace(2)).
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable

from linepool.kernel.pidfd import ChildProcess
from linepool.pool.deadline import StallLog


class StoppedChildren:
    """The children of the master that are stopped.

    Args:
        limit: Seconds after which one is overdue; 0: never.
        stalls: Periods in which the master was not running; they do not count.
    """

    def __init__(self, limit: float, stalls: StallLog) -> None:
        self._limit_ns = int(limit * 1e9)
        self._stalls = stalls
        self._since_ns: dict[ChildProcess, int] = {}

    def configure(self, limit: float) -> None:
        """Follow another limit from now on."""
        self._limit_ns = int(limit * 1e9)

    def look(self, children: Iterable[ChildProcess]) -> None:
        """Note which of the children are stopped."""
        now_ns = time.monotonic_ns()
        self._since_ns = {
            child: self._since_ns.get(child, now_ns)
            for child in children
            if self._limit_ns and child.is_stopped()
        }

    def take_overdue(self) -> list[ChildProcess]:
        """Return, once, those that have been stopped for as long as the limit and still are."""
        overdue = [child for child in self._since_ns if self._left_ns(child) <= 0]
        for child in overdue:
            del self._since_ns[child]
        return [child for child in overdue if child.is_stopped()]

    @property
    def due_at(self) -> float:
        """When one is overdue, on the monotonic clock; infinite: none is stopped."""
        left_ns = min(map(self._left_ns, self._since_ns), default=math.inf)
        return time.monotonic() + max(0.0, left_ns / 1e9)

    def _left_ns(self, child: ChildProcess) -> int:
        return self._limit_ns - self._stalls.charged(self._since_ns[child], time.monotonic_ns())
