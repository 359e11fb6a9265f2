"""The edges that workers need not tell at once, and what the master knows of them all the same.

Runs in the master. While many edges come, most of them change nothing that it could decide: the size of
the pool follows from the *least* number of idle workers, so only an edge that makes it smaller counts.
For periods that are short beside ``shrink_window``, the master publishes the least number in the period so
far, and workers tell only the edges at and below it. In between, and at the period's end, it reads the
states of all workers from the board. The history gets the least number as of the period's end: no smaller
one is missed, and none is forgotten too early.
"""

from __future__ import annotations

import math
import time

from linepool.ipc.board import MasterView
from linepool.pool.history import History
from linepool.pool.policy import idle_floor
from linepool.pool.scoreboard import Scoreboard, Tally
from linepool.settings import Settings

_LONGEST_NS = 250_000_000  # of a period
_PERIODS = 20  # in ``shrink_window``, at least
_MARGIN_NS = (
    30_000_000  # workers withhold edges for so long after a period: until the next one begins
)
_SETTLE_NS = 10_000_000  # after this long, what was withheld is on the board
_RISE = 4  # a period begins with the last one's least number, plus one and a part of those that are idle
_MANY = 4  # edges between two drains of the pipes; fewer are told


class WithheldEdges:
    """What workers need not tell.

    Args:
        board: Where that is published, and where the states are.
        scoreboard: Is kept up to date from the board.
        history: Is given what may have happened unseen.

    Attributes:
        due_at: When ``catch_up`` and ``plan`` are due, on the monotonic clock in seconds; infinite: all
            edges are told, so a request may not have begun unseen.
    """

    def __init__(self, board: MasterView, scoreboard: Scoreboard, history: History) -> None:
        self._board = board
        self._scoreboard = scoreboard
        self._history = history
        self.due_at = math.inf
        self._is_on = False
        self._until_ns = 0  # what happens later is told
        self._floor = 0
        self._workers = 0  # that were idle or busy when the period began
        self._edges = 0  # seen since then
        self._has_gap = False  # the size was fixed, so the history was given nothing

    def catch_up(self, told: int, now_ns: int) -> None:
        """Read the states that workers have not told.

        Pre-condition: the pipes are drained, for what is in them is older than what the board says.

        Args:
            told: How many records were in the pipes.
            now_ns: The current time on the monotonic clock.
        """
        self._edges += told
        if self.due_at == math.inf:
            return
        last_ns = min(self._until_ns - 1, now_ns)
        for slot, worker in self._scoreboard.workers.items():
            board = self._board.slot(slot)
            if worker.state is None or not worker.since_ns < board.since_ns <= last_ns:
                continue
            for record in self._scoreboard.caught_up(slot, board.record(worker)):
                self._edges += 1
                if not worker.retiring:
                    self._history.worker_changed(slot, record.state, record.at_ns)

    def resume(self, now_ns: int) -> None:
        """Have workers tell all edges, and look for those that they have withheld so far."""
        self._end(now_ns)

    def plan(self, tally: Tally, settings: Settings, now_ns: int) -> None:
        """Publish which edges are to be told from now on.

        Args:
            tally: The workers by state.
            settings: The current settings.
            now_ns: The current time on the monotonic clock.
        """
        workers = settings.workers
        is_fixed = workers.min == workers.max
        if self._has_gap and not is_fixed:
            self._history.restart(now_ns)
            self._has_gap = False
        least = self._history.take_least_idle()
        present = tally.idle + tally.busy
        is_due = now_ns >= self.due_at * 1e9
        if self._is_on and present == self._workers and not is_due:
            floor = idle_floor(tally, min(least, self._floor), settings)
            if floor is not None:
                self._publish(floor)
                return
        floor = idle_floor(tally, tally.idle, settings)
        if self._is_on and not is_fixed:
            self._history.unseen(self._floor, self._workers - self._floor, now_ns)
        if floor is not None and self._edges >= (1 if self._is_on else _MANY):
            if self._is_on:
                floor = min(floor, self._floor + 1 + floor // _RISE)
            self._begin(floor, present, now_ns, settings.shrink_window)
            self._has_gap = is_fixed
        elif self._is_on:
            self._end(now_ns)
        elif is_due:
            self.due_at = math.inf
        self._edges = 0

    def _begin(self, floor: int, workers: int, now_ns: int, window: float) -> None:
        ends_ns = now_ns + min(_LONGEST_NS, int(window * 1e9 / _PERIODS))
        self.due_at = ends_ns / 1e9
        self._is_on = True
        self._until_ns = ends_ns + _MARGIN_NS
        self._workers = workers
        self._publish(floor)

    def _publish(self, floor: int) -> None:
        self._floor = floor
        self._board.withhold_edges(self._until_ns, floor)

    def _end(self, now_ns: int) -> None:
        self._board.withhold_edges(0, 0)
        # The clock as it is after that: a worker that has just read the board may have withheld an edge.
        now_ns = max(now_ns, time.monotonic_ns())
        self.due_at = (now_ns + _SETTLE_NS) / 1e9
        self._is_on = False
        self._until_ns = now_ns
