"""Recycling: which workers are replaced because of their age, their memory or their requests served.

Runs in the master. A worker looks at its permit only between two requests, so no connection is cut. A
worker that is ordered to leave for its age or memory and still holds a connection after
``graceful_timeout`` ends it between two requests.
"""

from __future__ import annotations

import math
import os
import random
import time
from collections.abc import Iterable, Mapping
from typing import Any

from attrs import asdict, define

from linepool.ipc.board import MasterView, Order
from linepool.pool.recycling import Wear, replaceable
from linepool.pool.scoreboard import WorkerState
from linepool.pool.status import State
from linepool.settings import Settings

_LOOK_EVERY = 1.0  # seconds between two looks at memory and age
_LONG_CLIENT = 1.0  # seconds after which a connection counts as long-lived
_PAGE = os.sysconf("SC_PAGE_SIZE")
_MIB = 1024 * 1024


@define
class Span:
    """How much one worker may do; 0: no limit."""

    requests: int
    age: float
    hang_up_at: float = 0.0  # when a worker that was ordered to leave ends its connections
    why: str = ""  # the setting because of which it was ordered


class Recycler:
    """Decides which workers are replaced.

    Attributes:
        due_at: When to be asked again, on the monotonic clock; infinite: nothing is limited.
    """

    def __init__(self, settings: Settings, board: MasterView) -> None:
        self._settings = settings
        self._board = board
        self._spans: dict[int, Span] = {}
        self._random = random.SystemRandom()
        self._revoked = False  # permits are revoked, because workers are too old or too large
        self._timed = bool(settings.max_rss_mb or settings.max_age)
        self._on = bool(self._timed or settings.max_requests)
        self.due_at = time.monotonic() + _LOOK_EVERY if self._timed else float("inf")

    def configure(self, settings: Settings) -> None:
        """Follow other settings from now on."""
        self._settings = settings
        self._timed = bool(settings.max_rss_mb or settings.max_age)
        self._on = bool(self._timed or settings.max_requests)
        self.due_at = 0.0 if self._timed else math.inf

    def span(self, slot: int) -> dict[str, Any]:
        """Return how much a worker may do, for another program."""
        return asdict(self._spans[slot])

    def load_span(self, slot: int, facts: Mapping[str, Any]) -> None:
        """Take over how much a worker may do."""
        self._spans[slot] = Span(
            facts["requests"], facts["age"], facts["hang_up_at"], facts.get("why", "")
        )

    def spawned(self, slot: int) -> int:
        """Note a new worker; return the number of requests after which it leaves, 0: never."""
        settings = self._settings
        more = 1 + self._random.uniform(0, settings.max_requests_jitter)
        self._spans[slot] = Span(int(settings.max_requests * more), settings.max_age * more)
        return self._spans[slot].requests

    def turn(self, workers: Iterable[WorkerState]) -> list[tuple[int, Order]]:
        """Grant recycle permits; return the orders to give, by slot."""
        if not self._on:
            return []
        workers = list(workers)
        now = time.monotonic()
        if self._timed and now >= self.due_at:
            self.due_at = now + _LOOK_EVERY
            overstayed = self._overstayed(workers, now)
            worn = self._worn(workers, now)
            ordered = worn if self._revoked else []
            # Workers with a permit may leave at any time. So first all permits are revoked, and only
            # at the next look, when those that used one are seen to leave, others get an order.
            self._revoked = bool(worn)
            for slot in ordered:
                self._spans[slot].hang_up_at = now + self._settings.graceful_timeout
                is_old = any(one.slot == slot and self._age(one, now) >= 1 for one in workers)
                self._spans[slot].why = "max_age" if is_old else "max_rss_mb"
            return [(slot, Order.RETIRE) for slot in overstayed] + [
                (slot, Order.RECYCLE) for slot in ordered
            ]
        for worker in workers:
            if self._revoked:
                self._board.slot(worker.slot).permit = False
        if self._settings.max_requests and not self._revoked:
            wears = [self._served(worker, now) for worker in workers]
            if any(wear.share >= 1 and not wear.away for wear in wears):
                self._revoke(workers, now)
            for slot in replaceable(wears):
                self._board.slot(slot).permit = True
        return []

    def was_recycled(self, slot: int) -> bool:
        """Whether a worker that left by itself did so because it had served its number."""
        return bool(self._board.slot(slot).permit) and self._is_spent(slot)

    def reason(self, slot: int) -> str:
        """Return the setting because of which a worker was recycled that has ended; "": it was not."""
        return self._spans[slot].why or ("max_requests" if self.was_recycled(slot) else "")

    def _is_kept(self, worker: WorkerState, now: float) -> bool:
        """Whether a long-lived connection keeps a worker from leaving."""
        if self._settings.has_parker:  # it hands its connections off
            return False
        return worker.state is State.TAKEN and now - worker.since_ns / 1e9 >= _LONG_CLIENT

    def _is_spent(self, slot: int) -> bool:
        limit = self._spans[slot].requests
        return bool(limit) and self._board.slot(slot).requests >= limit

    def _served(self, worker: WorkerState, now: float) -> Wear:
        slot = self._board.slot(worker.slot)
        limit = self._spans[worker.slot].requests
        share = slot.requests / limit if limit else 0.0  # 0: it began before there was a limit
        if self._is_kept(worker, now):
            share = 0.0  # it cannot leave now, however many requests it has served
        settled = worker.leaving or slot.permit
        return Wear(worker.slot, share, settled or _is_starting(worker), settled)

    def _revoke(self, workers: list[WorkerState], now: float) -> None:
        """Revoke permits of workers that a long-lived connection keeps busy, so that others can use them.

        They are granted in a later turn; a worker that used its permit meanwhile is seen to leave by then.
        """
        for worker in workers:
            if self._is_kept(worker, now):
                self._board.slot(worker.slot).permit = False

    def _worn(self, workers: list[WorkerState], now: float) -> list[int]:
        """Return the slots of workers that are too old or too large, and may leave now."""
        wears = []
        for worker in workers:
            away = worker.leaving or _is_starting(worker)
            wears.append(Wear(worker.slot, self._age_and_size(worker, now), away, away))
        shares = {wear.slot: wear.share for wear in wears}
        return [slot for slot in replaceable(wears) if shares[slot] >= 1]

    def _age_and_size(self, worker: WorkerState, now: float) -> float:
        most = self._settings.max_rss_mb * _MIB
        return max(self._age(worker, now), resident_bytes(worker.pid) / most if most else 0.0)

    def _age(self, worker: WorkerState, now: float) -> float:
        most = self._spans[worker.slot].age
        return (now - worker.spawned_ns / 1e9) / most if most else 0.0

    def _overstayed(self, workers: list[WorkerState], now: float) -> list[int]:
        """Return the slots of workers whose connections have had their time to end by themselves."""
        return [
            worker.slot
            for worker in workers
            if 0 < self._spans[worker.slot].hang_up_at <= now
            and self._board.slot(worker.slot).order == Order.RECYCLE
        ]


def _is_starting(worker: WorkerState) -> bool:
    """Whether a worker is not ready yet, perhaps the replacement of one that left."""
    return worker.state is None


def resident_bytes(pid: int) -> int:
    """Return the resident memory of a process; 0 if it is gone (proc(5), statm)."""
    try:
        number = os.open(
            f"/proc/{pid}/statm", os.O_RDONLY | os.O_CLOEXEC
        )  # open() takes twice as long
        try:
            return int(os.read(number, 128).split()[1]) * _PAGE
        finally:
            os.close(number)
    except OSError:
        return 0
