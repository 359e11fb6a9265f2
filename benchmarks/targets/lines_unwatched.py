"""What board.py runs beside lines_app.py: the same handlers in workers that nobody watches.

Such a worker notes no request on the board and sends no status record but its first and its last,
which the master must have to start and to stop it. So there are no deadlines, no kills of what is
stuck, no counts of requests, errors and time, no states, and no client of a dead worker is told or
kept. What remains on the board is what workers share connections by: orders, who is free, and how
many connections each holds. In place of the other words a list takes what is written.

It exists for this one measurement; nobody should serve with it. The pool must be a fixed one, for the
master takes every worker for idle, and the scheme ``shared`` or ``dispatch``.
"""

from __future__ import annotations

from typing import Any, cast

import attrs
import lines_app  # noqa: F401  (its handlers are what is served)
from linepool.process import spawning, worker

from linepool.ipc.board import Slot
from linepool.pool.status import State
from linepool.worker.context import Station
from linepool.worker.loop import Sharing
from linepool.worker.worker import Worker


class _NoSlot(Slot):
    """Takes what connections write, and keeps none of it that costs anything."""

    def __init__(self, slot: Slot) -> None:
        self.words = cast("memoryview[int]", [0] * len(slot.words))
        self.held = cast("memoryview[int]", [0] * len(slot.held))

    def _nothing(self, *_: object) -> None:
        pass

    def pause(self, now_ns: int) -> int:
        return -1


for _name in ("begin", "begin_hook", "drop", "resume", "extend", "finish"):
    setattr(_NoSlot, _name, _NoSlot._nothing)


class _UnwatchedSharing(Sharing):
    def __init__(self, station: Station, *rest: Any) -> None:
        super().__init__(attrs.evolve(station, slot=_NoSlot(station.slot)), *rest)
        self._words = station.slot.words  # orders, who is free


class _UnwatchedWorker(Worker):
    def _report(self, state: State) -> None:
        if state in (State.READY, State.LEAVING):
            super()._report(state)


# This file is loaded in the master, before it forks.
setattr(worker, "Sharing", _UnwatchedSharing)  # noqa: B010
setattr(spawning, "Worker", _UnwatchedWorker)  # noqa: B010
