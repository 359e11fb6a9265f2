"""A warning while there is time: the memory limit is too low for the largest pool.

Runs in the master. The kernel kills a process of the group when the limit is reached
(Documentation/admin-guide/cgroup-v2.rst, memory.max), and that is most often a worker with a request.
"""

from __future__ import annotations

import logging
import math
import selectors
import time
from collections.abc import Iterable

from linepool.kernel.cgroups import memory_limit
from linepool.kernel.process_memory import ProcessMemory, memory_of
from linepool.master.master import Master

log = logging.getLogger("linepool")

_FIRST_LOOK = 1.0  # seconds after the start, and then until the first workers are up
_LOOK_EVERY = 60.0  # seconds: workers grow with what they have served
_SAMPLE = 8  # workers that are measured: 0.3 ms each
_MIB = 1024 * 1024


class MemoryCheck:
    """Compares the limit with what the largest pool would need; what the master's loop watches.

    Attributes:
        due_at: When to look again, on the monotonic clock; infinite: there is no limit.
    """

    def __init__(self, master: Master) -> None:
        self._master = master
        self._warned_of = 0  # workers
        self.due_at = time.monotonic() + _FIRST_LOOK if memory_limit() < math.inf else math.inf

    def open(self, selector: selectors.BaseSelector) -> None:
        """Register nothing: it only looks from time to time."""

    def turn(self) -> None:
        """Look, if it is time to."""
        now = time.monotonic()
        if now >= self.due_at:
            self.due_at = now + (_LOOK_EVERY if self._master.was_ready else _FIRST_LOOK)
            if self._master.was_ready:
                self._look()

    def close(self) -> None:
        """Close nothing."""

    def abandon(self) -> None:
        """Close nothing."""

    def _look(self) -> None:
        """Warn once if the limit is too low, and again if the pool may become larger."""
        bounds = self._master.settings.workers
        if bounds.max <= self._warned_of:
            return
        pids = [worker.pid for worker in self._master.scoreboard.workers.values()][:_SAMPLE]
        if warning := too_low(memory_limit(), bounds.max, filter(None, map(memory_of, pids))):
            self._warned_of = bounds.max
            log.warning("%s; lower workers (now %s) or raise the limit", warning, bounds)


def too_low(limit: float, workers: int, sample: Iterable[ProcessMemory]) -> str:
    """Return in what way a memory limit is too low for a number of workers; "": it is not, or not known.

    Args:
        limit: In bytes.
        workers: As many as there may be.
        sample: Some of them. What they share is counted once. It is the least that is needed: the
            master's own memory, and requests, come on top.
    """
    sizes = list(sample)
    if not sizes:
        return ""
    own = sum(size.own for size in sizes) / len(sizes)
    shared = max(size.shared for size in sizes)
    needed = workers * own + shared
    if needed <= limit:
        return ""
    return (
        f"memory limit too low for all workers: limit_mb={limit / _MIB:.0f} needed_mb={needed / _MIB:.0f}"
        f" workers={workers} own_mb={own / _MIB:.1f} shared_mb={shared / _MIB:.1f}"
    )
