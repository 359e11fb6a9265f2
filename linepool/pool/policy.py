"""The policy: what the pool should change now. One pure function, and its input and output.

Three figures decide. *Busy*: the peak of busy workers within ``shrink_window``; the pool is kept
``min_spare`` larger than that. *Waiting*: connections that wait while no worker has been idle for
``grow_delay``; each gets a worker. *Unneeded*: how many workers were surplus at every moment of
the window; those beyond ``max_spare`` are retired in one step. Growing and shrinking use the same
peak, so neither undoes what the other has done.
"""

from __future__ import annotations

import math

from attrs import evolve, field, frozen

from linepool.pool.scoreboard import Tally
from linepool.settings import MAX_WORKERS, Settings

SETTINGS = (
    "workers",
    "min_spare",
    "max_spare",
    "grow_delay",
    "max_spawn_rate",
    "shrink_window",
    "min_worker_age",
)
"""Those that decide the size of a pool, where handlers do not saturate the CPUs."""
MAX_BOOT_DELAY = 30.0
"""Seconds; the longest delay between two attempts to start a worker."""
MAX_SHORTAGE_DELAY = 0.5
"""Seconds; the same if they fail for want of descriptors, memory or processes."""

_RECHECK_S = 1.0
"""Between two plans while clients wait and the pool must not grow."""
_MIN_RECHECK_S = 0.01
"""Shortest time between two plans while clients wait."""
_MOST_COUNTED = 8
"""Idle workers that a worker may have to count at an edge; to tell it costs less than to count more."""
_SETTLE_FRACTION = 1 / 20
"""Part of ``shrink_window``: if more workers become unneeded within it, wait to retire all at once."""


@frozen
class Snapshot:
    """The input of the policy.

    Attributes:
        tally: The workers by state.
        boot_failures: How many workers in a row died before they were ready.
        since_failure: Seconds since the last of these.
        backlog: Connections that wait for a worker, in the kernel or parked.
        none_idle_for: Seconds for which no worker has been idle.
        idle_min: The minimum of idle workers within ``shrink_window``; None: it has not been
            observed in full yet.
        busy_max: The peak of busy workers within ``shrink_window``.
        steady_for: Seconds until one of these two changes if no worker changes state.
        spawn_allowance: How many workers may be forked now.
        allowance_in: Seconds until one more may be forked.
        since_spawn: Seconds since the last fork.
        cpu_bound: Whether the workers already saturate all CPUs.
        shortage: Whether the last failed boot was for want of descriptors, memory or processes.
    """

    tally: Tally
    boot_failures: int = 0
    since_failure: float = 0.0
    backlog: int = field(default=0, kw_only=True)
    none_idle_for: float = field(default=0.0, kw_only=True)
    idle_min: int | None = field(default=None, kw_only=True)
    busy_max: int = field(default=0, kw_only=True)
    steady_for: float = field(default=math.inf, kw_only=True)
    spawn_allowance: int = field(default=MAX_WORKERS, kw_only=True)
    allowance_in: float = field(default=0.0, kw_only=True)
    since_spawn: float = field(default=math.inf, kw_only=True)
    cpu_bound: bool = field(default=False, kw_only=True)
    shortage: bool = field(default=False, kw_only=True)

    @property
    def starved(self) -> bool:
        """Whether connections wait and no worker is idle."""
        return self.backlog > 0 and not self.tally.idle


@frozen
class Plan:
    """What to change.

    Attributes:
        spawn: How many workers to fork.
        retire: How many workers to retire.
        again_in: Seconds after which to plan again even if nothing happens; 0: no need.
        watch: Plan again as soon as a connection waits, because no worker will be idle.
        why: The reason, for the log.
    """

    spawn: int = 0
    retire: int = 0
    again_in: float = 0.0
    watch: bool = False
    why: str = ""


def plan(snapshot: Snapshot, settings: Settings) -> Plan:
    """Return what to change to give the pool the size it should have.

    The maximum bounds all live processes, leaving workers included. The minimum counts only workers
    that stay, and takes precedence: a worker that is slow to leave must not push the pool below it.
    """
    tally = snapshot.tally
    bounds = settings.workers
    wanted, why = _wanted(snapshot, settings)
    room = max(bounds.max - tally.total, bounds.min - tally.staying)
    missing = min(wanted - tally.staying, room)
    if tally.staying > bounds.max:
        change = Plan(retire=tally.staying - bounds.max, why=f"maximum {bounds.max}")
    elif missing > 0:
        change = _spawn(missing, why, snapshot, settings)
    else:
        change = _retire(snapshot, settings)
    return evolve(
        change,
        again_in=_soonest(change.again_in, _look_again(snapshot, settings)),
        watch=tally.idle <= change.retire and not snapshot.backlog,
    )


def idle_floor(tally: Tally, least: int, settings: Settings) -> int | None:
    """Return the number of idle workers below which each change of it counts; None: each change counts.

    What counts is what lowers the minimum of idle workers, or raises the peak of busy ones; and, while the
    pool may grow, how long no worker is idle.

    Args:
        tally: The workers by state.
        least: A minimum of idle workers that is known already.
        settings: The current settings.
    """
    bounds = settings.workers
    if bounds.min == bounds.max:
        return 0
    floor = min(tally.idle, least)
    if tally.staying <= bounds.min:  # it cannot shrink
        floor = min(floor, settings.min_spare)
    if tally.total < bounds.max:
        if not tally.idle:
            return None
        floor = max(1, floor)
    return floor if floor <= _MOST_COUNTED else None


def is_saturated(snapshot: Snapshot, settings: Settings) -> bool:
    """Whether connections wait, no worker is idle, and the pool must not grow."""
    return snapshot.starved and snapshot.tally.total >= settings.workers.max


def boot_delay(failures: int, respawn_backoff: float, *, shortage: bool) -> float:
    """Return the delay in seconds after a number of failed boots in a row."""
    most = MAX_SHORTAGE_DELAY if shortage else MAX_BOOT_DELAY
    return float(min(most, respawn_backoff * 1.5 ** min(failures - 1, 60)))


def _wanted(snapshot: Snapshot, settings: Settings) -> tuple[int, str]:
    """Return how many workers should stay, and the reason."""
    tally = snapshot.tally
    bounds = settings.workers
    busy = max(snapshot.busy_max, tally.busy)
    wanted, why = bounds.min, f"minimum {bounds.min}"
    if _held_by_cpu(snapshot, settings):
        # Short requests that saturate the CPUs leave no worker idle at any pool size. Replace
        # workers that have gone, but add none.
        spare = 0
    else:
        spare = settings.min_spare
        served = tally.busy + snapshot.backlog
        if snapshot.starved and snapshot.none_idle_for >= settings.grow_delay and served > wanted:
            waited = f"no worker idle for {snapshot.none_idle_for:.3g} s"
            wanted, why = served, f"{snapshot.backlog} waiting, {waited}"
    if busy + spare > wanted:
        wanted, why = busy + spare, f"peak busy {busy}" + (f", min_spare {spare}" if spare else "")
    return min(wanted, bounds.max), why


def _held_by_cpu(snapshot: Snapshot, settings: Settings) -> bool:
    return snapshot.cpu_bound and not settings.grow_on_cpu


def _spawn(missing: int, why: str, snapshot: Snapshot, settings: Settings) -> Plan:
    """Plan to fork the missing workers, as fast as allowed."""
    if snapshot.boot_failures:
        # One at a time until one is ready: a broken app must not become a fork bomb.
        if snapshot.tally.starting:
            return Plan(why=why)
        failures, backoff = snapshot.boot_failures, settings.respawn_backoff
        pause = boot_delay(failures, backoff, shortage=snapshot.shortage)
        if snapshot.since_failure < pause:
            return Plan(again_in=pause - snapshot.since_failure, why=why)
        missing = 1
    spawn = min(missing, snapshot.spawn_allowance)
    return Plan(spawn, again_in=snapshot.allowance_in if spawn < missing else 0.0, why=why)


def _retire(snapshot: Snapshot, settings: Settings) -> Plan:
    """Plan to retire the workers that were not needed in the whole window, all at once."""
    tally = snapshot.tally
    may_go = tally.staying - settings.workers.min
    if may_go <= 0 or tally.idle <= settings.max_spare:
        return Plan()
    later = Plan(again_in=snapshot.steady_for if snapshot.steady_for < math.inf else 0.0)
    if snapshot.idle_min is None:
        return later
    # A worker counted in idle_min may have exited since, so the peak limits the number too.
    unneeded = min(snapshot.idle_min, tally.staying - max(snapshot.busy_max, tally.busy))
    excess = min(unneeded - settings.max_spare, may_go)
    about_to_rise = snapshot.steady_for <= settings.shrink_window * _SETTLE_FRACTION
    if excess <= 0 or (excess < may_go and about_to_rise):
        return later
    if snapshot.since_spawn < settings.min_worker_age:
        return Plan(again_in=settings.min_worker_age - snapshot.since_spawn)
    why = f"{unneeded} not needed for {settings.shrink_window:g} s"
    return evolve(later, retire=excess, why=why)


def _look_again(snapshot: Snapshot, settings: Settings) -> float:
    """Return the seconds until growing may be due although nothing happens; 0: no need."""
    tally = snapshot.tally
    full = tally.total >= settings.workers.max
    held = _held_by_cpu(snapshot, settings) and not full
    if held and tally.idle + tally.starting < settings.min_spare:
        return _RECHECK_S
    if not snapshot.starved:
        return 0.0
    if held or full:
        return _RECHECK_S
    if snapshot.none_idle_for < settings.grow_delay:
        return settings.grow_delay - snapshot.none_idle_for
    # More clients may arrive while the spawned workers are starting.
    return max(settings.grow_delay, _MIN_RECHECK_S)


def _soonest(*seconds: float) -> float:
    """Return the shortest of some times, where 0 means none."""
    return min(filter(None, seconds), default=0.0)
