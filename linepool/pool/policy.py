"""The policy: what the pool should change now. One pure function and the values that it takes.

Three figures decide. *Busy*: how many workers were busy at once, at most, within ``shrink_window``;
the pool is kept ``min_spare`` larger than that. *Waiting*: connections that nobody takes though they
have waited for ``grow_delay``; each gets a worker. *Unneeded*: how many workers were more than needed
at every moment of the window; what exceeds ``max_spare`` is retired in one step. Growing and
shrinking look at the same peak, so what one of them has done the other does not undo.
"""

from __future__ import annotations

import math

from attrs import evolve, field, frozen

from linepool.pool.scoreboard import Tally
from linepool.settings import MAX_WORKERS, Settings

MAX_BOOT_DELAY = 30.0
"""Seconds; the longest pause between two attempts to start a worker."""

_LOOK_AGAIN = 1.0
"""Seconds between two looks at clients who wait while the pool must not grow."""
_TURN = 0.01
"""Seconds; nothing is asked for sooner again."""
_SETTLE = 1 / 20
"""Part of the shrink window: if more will be found unneeded within it, all go in one step then."""


@frozen
class Snapshot:
    """What the policy looks at.

    Attributes:
        tally: The workers by state.
        boot_failures: How many workers in a row died before they were ready.
        since_failure: Seconds since the last of these.
        backlog: Connections that wait for a worker, in the kernel or parked.
        none_idle_for: Seconds for which nobody has been idle.
        idle_min: How many workers were idle at least within the shrink window; None: it has not been
            observed in full yet.
        busy_max: How many were busy at once, at most, within the shrink window.
        steady_for: Seconds for which these two stay as they are if nothing happens.
        spawn_allowance: How many workers may be forked now.
        allowance_in: Seconds until it is one more.
        since_spawn: Seconds since the last fork.
        cpu_bound: The workers already keep all processors busy.
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

    @property
    def starved(self) -> bool:
        """Whether connections wait and nobody is there to take them."""
        return self.backlog > 0 and not self.tally.idle


@frozen
class Plan:
    """What to change.

    Attributes:
        spawn: How many workers to fork.
        retire: How many to tell to leave.
        again_in: Seconds after which to ask again even if nothing happens; 0: no need.
        watch: Ask again as soon as a connection waits: nobody will be idle to take it.
        why: The reason, for the log.
    """

    spawn: int = 0
    retire: int = 0
    again_in: float = 0.0
    watch: bool = False
    why: str = ""


def plan(snapshot: Snapshot, settings: Settings) -> Plan:
    """Return what to change so that the pool is as large as it should be.

    The maximum bounds every process alive, those that leave included. The minimum counts only those
    that stay, and comes first: a worker that takes its time to leave must not cost the pool its floor.
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


def is_saturated(snapshot: Snapshot, settings: Settings) -> bool:
    """Whether connections wait, nobody is idle, and the pool must not grow any more."""
    return snapshot.starved and snapshot.tally.total >= settings.workers.max


def boot_delay(failures: int, respawn_backoff: float) -> float:
    """Return the seconds to wait after so many failed boots in a row."""
    return float(min(MAX_BOOT_DELAY, respawn_backoff * 1.5 ** min(failures - 1, 60)))


# -- inside


def _wanted(snapshot: Snapshot, settings: Settings) -> tuple[int, str]:
    """Return how many workers should stay, and why so many."""
    tally = snapshot.tally
    bounds = settings.workers
    busy = max(snapshot.busy_max, tally.busy)
    wanted, why = bounds.min, f"minimum {bounds.min}"
    if _held_by_cpu(snapshot, settings):
        # Quick requests that saturate the processors leave nobody idle, whatever the pool's size.
        # Whom they killed or recycled is replaced, no more.
        spare = 0
    else:
        spare = settings.min_spare
        served = tally.busy + snapshot.backlog
        if snapshot.starved and snapshot.none_idle_for >= settings.grow_delay and served > wanted:
            waited = f"nobody idle for {snapshot.none_idle_for:.3g} s"
            wanted, why = served, f"{snapshot.backlog} waiting, {waited}"
    if busy + spare > wanted:
        wanted, why = busy + spare, f"{busy} busy at once, {spare} spare"
    return min(wanted, bounds.max), why


def _held_by_cpu(snapshot: Snapshot, settings: Settings) -> bool:
    return snapshot.cpu_bound and not settings.grow_on_cpu


def _spawn(missing: int, why: str, snapshot: Snapshot, settings: Settings) -> Plan:
    """Plan to fork those who are missing, as fast as is allowed."""
    if snapshot.boot_failures:
        # One at a time until one comes up: a broken app must not become a fork bomb.
        if snapshot.tally.starting:
            return Plan(why=why)
        pause = boot_delay(snapshot.boot_failures, settings.respawn_backoff)
        if snapshot.since_failure < pause:
            return Plan(again_in=pause - snapshot.since_failure, why=why)
        missing = 1
    spawn = min(missing, snapshot.spawn_allowance)
    return Plan(spawn, again_in=snapshot.allowance_in if spawn < missing else 0.0, why=why)


def _retire(snapshot: Snapshot, settings: Settings) -> Plan:
    """Plan to part with those who were not needed in the whole window, all at once."""
    tally = snapshot.tally
    may_go = tally.staying - settings.workers.min
    if may_go <= 0 or tally.idle <= settings.max_spare:
        return Plan()
    later = Plan(again_in=snapshot.steady_for if snapshot.steady_for < math.inf else 0.0)
    if snapshot.idle_min is None:
        return later
    # Who has left since he was idle is no longer there to be retired, so the peak counts as well.
    unneeded = min(snapshot.idle_min, tally.staying - max(snapshot.busy_max, tally.busy))
    excess = min(unneeded - settings.max_spare, may_go)
    about_to_rise = snapshot.steady_for <= settings.shrink_window * _SETTLE
    if excess <= 0 or (excess < may_go and about_to_rise):
        return later
    if snapshot.since_spawn < settings.min_worker_age:
        return Plan(again_in=settings.min_worker_age - snapshot.since_spawn)
    why = f"{unneeded} not needed for {settings.shrink_window:g} s"
    return evolve(later, retire=excess, why=why)


def _look_again(snapshot: Snapshot, settings: Settings) -> float:
    """Return when to look again for growing, if nothing happens; 0: no need."""
    tally = snapshot.tally
    full = tally.total >= settings.workers.max
    held = _held_by_cpu(snapshot, settings) and not full
    if held and tally.idle + tally.starting < settings.min_spare:
        return _LOOK_AGAIN
    if not snapshot.starved:
        return 0.0
    if held or full:
        return _LOOK_AGAIN
    if snapshot.none_idle_for < settings.grow_delay:
        return settings.grow_delay - snapshot.none_idle_for
    # More may come to wait while those who have been spawned for the others are starting.
    return max(settings.grow_delay, _TURN)


def _soonest(*seconds: float) -> float:
    """Return the shortest of some pauses, where 0 means none."""
    return min(filter(None, seconds), default=0.0)
