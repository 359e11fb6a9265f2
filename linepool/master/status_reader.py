"""The master's ends of the status pipes of its workers.

Runs in the master. To wake up for every record would cost more than the record does. So when one has
come, the master pauses for a while, and then reads all at once.
"""

from __future__ import annotations

import math
import selectors
import time
from collections.abc import Callable

from linepool.ipc.board import MasterView
from linepool.kernel import features
from linepool.kernel.event_set import new_selector
from linepool.master.worker_handle import WorkerHandle
from linepool.pool.scoreboard import Scoreboard
from linepool.pool.status import Record

_PAUSE = 0.01  # seconds
LONGEST_PAUSE = 0.04
"""Seconds that a pause grows to while records come all the time."""


class StatusReader:
    """The status pipes of all workers.

    Args:
        board: Has the last state of a worker whose pipe was full.
        scoreboard: Rejects records that are malformed, and drops those that are outdated.
        selector: The master's; it wakes when there is something to read.
        on_loss: Called when records were lost, because a pipe was full.
    """

    def __init__(
        self,
        board: MasterView,
        scoreboard: Scoreboard,
        selector: selectors.BaseSelector,
        on_loss: Callable[[], None],
    ) -> None:
        self._board = board
        self._scoreboard = scoreboard
        self._selector = selector
        self._on_loss = on_loss
        self._pipes = new_selector()
        self._pause = _PAUSE
        self._listen_at = 0.0  # when the pause ends; 0: there is none
        self._listens_since = 0.0
        self._listen()

    def add(self, slot: int, worker: WorkerHandle) -> None:
        """Read the records of a new worker too."""
        self._pipes.register(worker.pipe.reader, selectors.EVENT_READ, (slot, worker.pipe))
        if not (features.EPOLL or self._listen_at):
            self._watch(worker.pipe.reader)

    def remove(self, worker: WorkerHandle) -> None:
        """Read no more from a worker; its pipe is still open."""
        self._pipes.unregister(worker.pipe.reader)
        if not (features.EPOLL or self._listen_at):
            self._selector.unregister(worker.pipe.reader)

    def close(self) -> None:
        """Close the selector of this process, in the master and in its new children."""
        self._pipes.close()

    def on_timer(self, now: float) -> float:
        """End a pause that is over; return when the present one ends; infinite: there is none."""
        if self._listen_at and now >= self._listen_at:
            self._listens_since, self._listen_at = self._listen_at, 0.0
            self._listen()
        return self._listen_at or math.inf

    def drain(self) -> list[Record]:
        """Return what all workers have written since the last time, ordered by time."""
        records: list[Record] = []
        for key, _ in self._pipes.select(0):
            slot, pipe = key.data
            data = pipe.drain()
            records += self._scoreboard.heard(slot, data, time.monotonic_ns())
            if pipe.may_have_refused(data):  # the board has the last record
                last = self._board.slot(slot).record(self._scoreboard.workers[slot])
                records += self._scoreboard.caught_up(slot, last)
                self._on_loss()
        records.sort(key=lambda record: record.at_ns)
        return records

    def _sources(self) -> list[int]:
        """Return what wakes the master: the epoll set of the pipes; where there is none, each pipe."""
        if features.EPOLL:
            return [self._pipes.fileno()]
        return [key.fd for key in self._pipes.get_map().values()]

    def _listen(self) -> None:
        for descriptor in self._sources():
            self._watch(descriptor)

    def _watch(self, descriptor: int) -> None:
        self._selector.register(descriptor, selectors.EVENT_READ, self._pause_reading)

    def _pause_reading(self) -> None:
        """Begin a pause; it is longer while records come all the time."""
        for descriptor in self._sources():
            self._selector.unregister(descriptor)
        now = time.monotonic()
        was_quiet = now - self._listens_since > _PAUSE
        self._pause = _PAUSE if was_quiet else min(2 * self._pause, LONGEST_PAUSE)
        self._listen_at = now + self._pause
