"""Recycling: the master's part. It hands out licenses to leave, and tells who is too old or too big.

Runs in the master. A worker looks at its license only between two clients, so nobody's connection is
cut: it ends first. A worker told to leave for its age or memory that still holds a client after
``graceful_timeout`` ends that connection between two requests.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterable

from attrs import define

from linepool.ipc.board import ORDER, PERMIT, REQUESTS, Board, Order
from linepool.pool.recycling import Wear, replaceable
from linepool.pool.scoreboard import WorkerState
from linepool.pool.status import State
from linepool.settings import Settings

_LOOK_EVERY = 1.0  # seconds between two looks at memory and age
_LONG_CLIENT = 1.0  # seconds after which a client is one that stays
_PAGE = os.sysconf("SC_PAGE_SIZE")
_MIB = 1024 * 1024


@define
class Span:
    """How much one worker may do; 0: no limit."""

    requests: int
    age: float
    hang_up_at: float = 0.0  # when a worker that was told ends its client's connection


class Recycler:
    """Decides who is replaced.

    Attributes:
        due_at: When to be asked again, on the monotonic clock; infinite: nothing is limited.
    """

    def __init__(self, settings: Settings, board: Board) -> None:
        self._settings = settings
        self._board = board
        self._spans: dict[int, Span] = {}
        self._random = random.SystemRandom()
        self._held = False  # licenses are taken back, because others are worn
        self._timed = bool(settings.max_rss_mb or settings.max_age)
        self._on = bool(self._timed or settings.max_requests)
        self.due_at = time.monotonic() + _LOOK_EVERY if self._timed else float("inf")

    def spawned(self, slot: int) -> int:
        """Note a new worker; return the number of requests after which it leaves, 0: never."""
        settings = self._settings
        more = 1 + self._random.uniform(0, settings.max_requests_jitter)
        self._spans[slot] = Span(int(settings.max_requests * more), settings.max_age * more)
        return self._spans[slot].requests

    def turn(self, workers: Iterable[WorkerState]) -> list[tuple[int, Order]]:
        """Hand out licenses; return who is to be told to leave, by slot, and how."""
        if not self._on:
            return []
        workers = list(workers)
        now = time.monotonic()
        if self._timed and now >= self.due_at:
            self.due_at = now + _LOOK_EVERY
            overstayed = self._overstayed(workers, now)
            worn = self._worn(workers, now)
            told = worn if self._held else []
            # Those who hold a license may leave at any time. So first all are taken back, and
            # only at the next look, when who used one is seen to leave, others are told.
            self._held = bool(worn)
            for slot in told:
                self._spans[slot].hang_up_at = now + self._settings.graceful_timeout
            return [(slot, Order.RETIRE) for slot in overstayed] + [
                (slot, Order.RECYCLE) for slot in told
            ]
        for worker in workers:
            if self._held:
                self._board.slots[worker.slot].words[PERMIT] = 0
        if self._settings.max_requests and not self._held:
            wears = [self._served(worker, now) for worker in workers]
            if any(wear.share >= 1 and not wear.away for wear in wears):
                self._take_back(workers, now)
            for slot in replaceable(wears):
                self._board.slots[slot].words[PERMIT] = 1
        return []

    def was_recycled(self, slot: int) -> bool:
        """Whether a worker that left by itself did so because it had served its number."""
        return bool(self._board.slots[slot].words[PERMIT]) and self._is_spent(slot)

    def _is_kept(self, worker: WorkerState, now: float) -> bool:
        """Whether a worker has had one client for so long that it may have it for ever."""
        if self._settings.parks:  # it hands its clients on
            return False
        return worker.state is State.TAKEN and now - worker.since_ns / 1e9 >= _LONG_CLIENT

    def _is_spent(self, slot: int) -> bool:
        limit = self._spans[slot].requests
        return bool(limit) and self._board.slots[slot].words[REQUESTS] >= limit

    def _served(self, worker: WorkerState, now: float) -> Wear:
        words = self._board.slots[worker.slot].words
        share = words[REQUESTS] / self._spans[worker.slot].requests
        if self._is_kept(worker, now):
            share = 0.0  # it cannot leave now, however much it has served
        settled = worker.leaving or bool(words[PERMIT])
        return Wear(worker.slot, share, settled or _is_starting(worker), settled)

    def _take_back(self, workers: list[WorkerState], now: float) -> None:
        """Take the licenses of those who are kept by a client: others wait for one.

        They go to the others in a later turn; who used one meanwhile is seen to leave by then.
        """
        for worker in workers:
            if self._is_kept(worker, now):
                self._board.slots[worker.slot].words[PERMIT] = 0

    def _worn(self, workers: list[WorkerState], now: float) -> list[int]:
        """Return the slots of those too old or too big that may be told to leave now."""
        wears = []
        for worker in workers:
            away = worker.leaving or _is_starting(worker)
            wears.append(Wear(worker.slot, self._age_and_size(worker, now), away, away))
        shares = {wear.slot: wear.share for wear in wears}
        return [slot for slot in replaceable(wears) if shares[slot] >= 1]

    def _age_and_size(self, worker: WorkerState, now: float) -> float:
        age = self._spans[worker.slot].age
        most = self._settings.max_rss_mb * _MIB
        return max(
            (now - worker.spawned_ns / 1e9) / age if age else 0.0,
            resident_bytes(worker.pid) / most if most else 0.0,
        )

    def _overstayed(self, workers: list[WorkerState], now: float) -> list[int]:
        """Return the slots of those whose client has had the time that it gets to leave by itself."""
        return [
            worker.slot
            for worker in workers
            if 0 < self._spans[worker.slot].hang_up_at <= now
            and self._board.slots[worker.slot].words[ORDER] == Order.RECYCLE
        ]


def _is_starting(worker: WorkerState) -> bool:
    """Whether a worker has yet to come up, perhaps in the place of one that left."""
    return worker.state is None


def resident_bytes(pid: int) -> int:
    """Return the resident memory of a process; 0 if it is gone (proc(5), statm)."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            return int(file.read().split()[1]) * _PAGE
    except OSError:
        return 0
