"""The policy: what the pool should change now. One pure function and the values that it takes."""

from __future__ import annotations

from attrs import frozen

from linepool.pool.scoreboard import Tally
from linepool.settings import Settings

MAX_BOOT_DELAY = 30.0
"""Seconds; the longest pause between two attempts to start a worker."""


@frozen
class Snapshot:
    """What the policy looks at.

    Attributes:
        tally: The workers by state.
        boot_failures: How many workers in a row died before they were ready.
        since_failure: Seconds since the last of these.
    """

    tally: Tally
    boot_failures: int = 0
    since_failure: float = 0.0


@frozen
class Plan:
    """What to change.

    Attributes:
        spawn: How many workers to fork.
        retire: How many to tell to leave.
        again_in: Seconds after which to ask again even if nothing happens; 0: no need.
    """

    spawn: int = 0
    retire: int = 0
    again_in: float = 0.0


def plan(snapshot: Snapshot, settings: Settings) -> Plan:
    """Return what to change so that the pool is as large as it should be."""
    tally = snapshot.tally
    bounds = settings.workers
    if tally.staying > bounds.max:
        return Plan(retire=tally.staying - bounds.max)
    wanted = min(max(bounds.min, tally.busy + settings.min_spare), bounds.max)
    missing = wanted - tally.staying
    if missing <= 0 or not snapshot.boot_failures:
        return Plan(spawn=max(0, missing))
    # One at a time until one comes up: a broken app must not become a fork bomb.
    if tally.starting:
        return Plan()
    rest = boot_delay(snapshot.boot_failures, settings.respawn_backoff) - snapshot.since_failure
    return Plan(again_in=rest) if rest > 0 else Plan(spawn=1)


def boot_delay(failures: int, respawn_backoff: float) -> float:
    """Return the seconds to wait after so many failed boots in a row."""
    return float(min(MAX_BOOT_DELAY, respawn_backoff * 1.5 ** min(failures - 1, 60)))
