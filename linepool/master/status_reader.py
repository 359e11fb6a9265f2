"""What the workers report: the master's ends of their status pipes.

Runs in the master. To be woken for every record would cost more than the record does. So when one has
come, the master does not listen for a while, and then reads all at once.
"""

from __future__ import annotations

import math
import selectors
import time
from collections.abc import Callable

from linepool.ipc.board import Board
from linepool.ipc.status_pipe import PIPE_FULL
from linepool.master.worker_handle import Child
from linepool.pool.scoreboard import Scoreboard
from linepool.pool.status import Record

_PAUSE = 0.01  # seconds
LONGEST_PAUSE = 0.04
"""Seconds that a pause grows to while records come all the time."""


class Reports:
    """The status pipes of all workers.

    Args:
        board: Has the last word of a worker whose pipe was full.
        scoreboard: Sorts out what makes no sense, or is no news.
        selector: The master's; it wakes when there is something to read.
        on_loss: Called when records were lost, because a pipe was full.
    """

    def __init__(
        self,
        board: Board,
        scoreboard: Scoreboard,
        selector: selectors.BaseSelector,
        on_loss: Callable[[], None],
    ) -> None:
        self._board = board
        self._scoreboard = scoreboard
        self._selector = selector
        self._on_loss = on_loss
        self._pipes = selectors.DefaultSelector()
        self._pause = _PAUSE
        self._listen_at = 0.0  # when the pause ends; 0: there is none
        self._listens_since = 0.0
        self._listen()

    def add(self, slot: int, child: Child) -> None:
        """Hear a new worker too."""
        self._pipes.register(child.pipe.reader, selectors.EVENT_READ, (slot, child.pipe))

    def remove(self, child: Child) -> None:
        """Hear no more of a worker; its pipe is still open."""
        self._pipes.unregister(child.pipe.reader)

    def close(self) -> None:
        """Give the selector of this process back, in the master and in a new child of its."""
        self._pipes.close()

    def look_at_the_clock(self, now: float) -> float:
        """End a pause that is over; return when the present one ends, infinite if there is none."""
        if self._listen_at and now >= self._listen_at:
            self._listens_since, self._listen_at = self._listen_at, 0.0
            self._listen()
        return self._listen_at or math.inf

    def drain(self) -> list[Record]:
        """Return what all have written since the last time, in the order of its time."""
        records: list[Record] = []
        for key, _ in self._pipes.select(0):
            slot, pipe = key.data
            data = pipe.drain()
            records += self._scoreboard.heard(slot, data)
            if len(data) >= PIPE_FULL:  # then the last word may be missing; the board has it
                last = self._board.slots[slot].record(self._scoreboard.workers[slot])
                records += self._scoreboard.caught_up(slot, last)
                self._on_loss()
        records.sort(key=lambda record: record.at_ns)
        return records

    def _listen(self) -> None:
        self._selector.register(self._pipes.fileno(), selectors.EVENT_READ, self._rest)

    def _rest(self) -> None:
        """Begin a pause; it is longer while records come all the time."""
        self._selector.unregister(self._pipes.fileno())
        now = time.monotonic()
        was_quiet = now - self._listens_since > _PAUSE
        self._pause = _PAUSE if was_quiet else min(2 * self._pause, LONGEST_PAUSE)
        self._listen_at = now + self._pause
