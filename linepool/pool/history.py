"""The history: what the master remembers about the pool for planning.

It receives state changes in order of time, not samples, and of those that are withheld what matters. So a
moment in which no worker was idle is not missed, whatever the master did meanwhile.
"""

from __future__ import annotations

import math
from collections import deque

from linepool.pool.policy import Snapshot
from linepool.pool.scoreboard import Tally
from linepool.pool.status import State
from linepool.settings import Settings

_IDLE_WEIGHT = 5
"""How much faster the time without an idle worker shrinks while one is idle than it grew before."""
_IDLE_IGNORED_NS = 2_000_000
"""A worker TAKEN this soon after IDLE was never free: it had not yet seen the client that waited."""
_WARN_INTERVAL_NS = 60_000_000_000
_WARN_AFTER_NS = 1_000_000_000


class History:
    """The idle and busy workers within the window, the forks, and the failed boots."""

    def __init__(self, settings: Settings, now_ns: int) -> None:
        """Start with no worker."""
        self.boot_failures = 0
        self._grow_delay_ns = round(settings.grow_delay * 1e9)
        self._window_ns = round(settings.shrink_window * 1e9)
        self._since_ns = now_ns
        self._now_ns = now_ns
        self._idle: set[int] = set()
        self._busy: set[int] = set()
        self._idle_past = Sliding(0)
        self._busy_past = Sliding(0)  # negated: its minimum is the peak
        self._least_idle = 0
        self._none_idle_ns = 0
        self._flipped_ns = now_ns  # when the last idle worker was taken, or a first one became idle
        self._budget = Budget()
        self._spawned_ns: int | None = None
        self._failed_ns = now_ns
        self._shortage = False

    def worker_changed(self, slot: int, state: State | None, at_ns: int) -> None:
        """Record the state that a worker reported; None: it has exited, or was ordered to.

        Pre-condition: the records of all workers come in order of time. A late one counts as of the
        latest time known.
        """
        if state is State.READY:
            self.boot_failures = 0
        (self._idle.add if state in (State.READY, State.IDLE) else self._idle.discard)(slot)
        (self._busy.add if state is State.TAKEN else self._busy.discard)(slot)
        self.changed(len(self._idle), len(self._busy), at_ns)

    def changed(self, idle: int, busy: int, at_ns: int) -> None:
        """Record how many workers are idle and how many are busy from a moment on."""
        at_ns = max(at_ns, self._now_ns)
        if bool(idle) != bool(self._idle_past.value):
            self._account(at_ns)
        self._now_ns = at_ns
        self._least_idle = min(self._least_idle, idle)
        self._idle_past.set(idle, at_ns)
        self._busy_past.set(-busy, at_ns)

    def take_least_idle(self) -> int:
        """Return the least number of idle workers since the last call."""
        least, self._least_idle = self._least_idle, len(self._idle)
        return least

    def unseen(self, idle: int, busy: int, at_ns: int) -> None:
        """Record how few workers may have been idle, and how many busy, shortly before a moment.

        It is not among what ``take_least_idle`` returns: that was seen.
        """
        seen = self._least_idle
        self.changed(min(idle, len(self._idle)), max(busy, len(self._busy)), at_ns)
        self.changed(len(self._idle), len(self._busy), at_ns)
        self._least_idle = seen

    def _account(self, at_ns: int) -> None:
        """Add to the time without an idle worker, or subtract the time with one."""
        past_ns = at_ns - self._flipped_ns
        self._flipped_ns = at_ns
        if self._idle_past.value:
            # Up to twice the delay counts, so that a short idle moment leaves it exceeded.
            known_ns = min(self._none_idle_ns, 2 * self._grow_delay_ns)
            paid_ns = _IDLE_WEIGHT * max(0, past_ns - _IDLE_IGNORED_NS)
            self._none_idle_ns = max(0, known_ns - paid_ns)
        else:
            self._none_idle_ns += past_ns

    def configure(self, settings: Settings) -> None:
        """Follow other settings from now on; another window begins anew."""
        self._grow_delay_ns = round(settings.grow_delay * 1e9)
        window_ns = round(settings.shrink_window * 1e9)
        if window_ns != self._window_ns:
            self._window_ns = window_ns
            self.restart(self._now_ns)

    def spawned(self, settings: Settings, now_ns: int) -> None:
        """Record a fork."""
        self._spawned_ns = now_ns
        self._budget.spend(settings, now_ns)

    def boot_failed(self, now_ns: int, *, shortage: bool = False) -> None:
        """Record that a worker died before it was ready, or could not be forked.

        Args:
            now_ns: When.
            shortage: Whether that was for want of descriptors, memory or processes.
        """
        self.boot_failures += 1
        self._shortage = shortage
        self._failed_ns = now_ns

    def restart(self, now_ns: int) -> None:
        """Forget the past of idle and busy workers, because records were lost."""
        self._since_ns = self._flipped_ns = self._now_ns = max(now_ns, self._now_ns)
        self._none_idle_ns = 0
        self._idle_past = Sliding(self._idle_past.value)
        self._busy_past = Sliding(self._busy_past.value)

    def idle_min(self, now_ns: int) -> int | None:
        """Return the minimum of idle workers within the window; None: the window is not full yet."""
        if now_ns - self._since_ns < self._window_ns:
            return None
        return self._idle_past.least(now_ns - self._window_ns)

    def busy_max(self, now_ns: int) -> int:
        """Return the peak of busy workers within the window."""
        return -self._busy_past.least(now_ns - self._window_ns)

    def steady_for(self, now_ns: int) -> float:
        """Return the seconds until ``idle_min`` or ``busy_max`` changes if no worker changes state."""
        full_ns = self._since_ns + self._window_ns
        if now_ns < full_ns:
            return (full_ns - now_ns) / 1e9
        begin_ns = now_ns - self._window_ns
        ends_ns = [past.least_until(begin_ns) for past in (self._idle_past, self._busy_past)]
        return min((ns - begin_ns for ns in ends_ns if ns is not None), default=math.inf) / 1e9

    def none_idle_for(self, now_ns: int) -> float:
        """Return the seconds for which no worker has been idle.

        A worker that reports IDLE just before it sees a waiting client, or READY while clients
        wait, is not really idle. Such short moments reduce this time, but do not reset it.
        """
        if self._idle_past.value:
            return 0.0
        return (self._none_idle_ns + max(0, now_ns - self._flipped_ns)) / 1e9

    def snapshot(
        self,
        tally: Tally,
        settings: Settings,
        now_ns: int,
        *,
        backlog: int = 0,
        cpu_bound: bool = False,
    ) -> Snapshot:
        """Return the input of the policy.

        Args:
            tally: The workers by state, now.
            settings: The current settings.
            now_ns: The current time on the monotonic clock.
            backlog: Connections that wait for a worker.
            cpu_bound: Whether the workers already saturate all CPUs.
        """
        spawned_ns = self._spawned_ns
        return Snapshot(
            tally,
            self.boot_failures,
            (now_ns - self._failed_ns) / 1e9,
            backlog=backlog,
            none_idle_for=self.none_idle_for(now_ns),
            idle_min=self.idle_min(now_ns),
            busy_max=self.busy_max(now_ns),
            steady_for=self.steady_for(now_ns),
            spawn_allowance=self._budget.allowance(settings, now_ns),
            allowance_in=self._budget.next_in(settings, now_ns),
            since_spawn=math.inf if spawned_ns is None else (now_ns - spawned_ns) / 1e9,
            cpu_bound=cpu_bound,
            shortage=self._shortage,
        )


class Sliding:
    """The exact minimum of a changing value over a sliding window.

    It keeps the time at which a value ended, and only while no smaller or equal value has ended
    since: the others can no longer become the minimum. So there is one entry at most per distinct
    value.
    """

    def __init__(self, value: int) -> None:
        self.value = value
        self._left: deque[tuple[int, int]] = deque()  # (ended at_ns, value), both ascending

    def set(self, value: int, at_ns: int) -> None:
        """Change the value."""
        if value == self.value:
            return
        while self._left and self._left[-1][1] >= self.value:
            self._left.pop()
        self._left.append((at_ns, self.value))
        self.value = value

    def least(self, since_ns: int) -> int:
        """Return the minimum since a time; from call to call, that time must not decrease."""
        while self._left and self._left[0][0] <= since_ns:
            self._left.popleft()
        return min(self._left[0][1], self.value) if self._left else self.value

    def least_until(self, since_ns: int) -> int | None:
        """Return the ``since_ns`` at which the minimum rises; None: it does not."""
        return self._left[0][0] if self.least(since_ns) < self.value else None


class Budget:
    """How many workers may be forked: a token bucket that ``max_spawn_rate`` fills.

    It holds the forks of one second, or the minimum pool size if that is larger, so that a pool
    starts without delay. Its only state is the time at which it will be full again.
    """

    def __init__(self) -> None:
        self._full_ns = 0

    def allowance(self, settings: Settings, now_ns: int) -> int:
        """Return how many workers may be forked now."""
        capacity_ns = _burst(settings) * _refill_ns(settings)
        return max(0, (capacity_ns - max(0, self._full_ns - now_ns)) // _refill_ns(settings))

    def next_in(self, settings: Settings, now_ns: int) -> float:
        """Return the seconds until one more may be forked; 0: the bucket is full."""
        missing_ns = max(0, self._full_ns - now_ns)
        spent = min(-(-missing_ns // _refill_ns(settings)), _burst(settings))
        return (missing_ns - (spent - 1) * _refill_ns(settings)) / 1e9 if missing_ns else 0.0

    def spend(self, settings: Settings, now_ns: int) -> None:
        """Take one fork from the bucket."""
        self._full_ns = max(self._full_ns, now_ns) + _refill_ns(settings)


def _refill_ns(settings: Settings) -> int:
    """Return how long the bucket takes to gain one fork."""
    return round(1e9 / settings.max_spawn_rate)


def _burst(settings: Settings) -> int:
    return max(1, int(settings.max_spawn_rate), settings.workers.min)


class Saturation:
    """How long the pool was at its maximum while connections waited."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._since_ns: int | None = None
        self._began_ns: int | None = None
        self._warned_ns: int | None = None

    def look(self, saturated: bool, now_ns: int) -> bool:
        """Record the current state; return whether to warn: after a second, then once a minute.

        The time between two calls counts if the pool is saturated at both.
        """
        if not saturated:
            self._began_ns = None
        elif self._began_ns is None:
            self._began_ns = now_ns
        if saturated and self._since_ns is not None:
            self.seconds += (now_ns - self._since_ns) / 1e9
        self._since_ns = now_ns if saturated else None
        lasting = self._began_ns is not None and now_ns - self._began_ns >= _WARN_AFTER_NS
        due = lasting and (self._warned_ns is None or now_ns - self._warned_ns >= _WARN_INTERVAL_NS)
        if saturated and due:
            self._warned_ns = now_ns
        return saturated and due

    def lasting_ns(self, now_ns: int) -> int:
        """Return for how long it has lasted by now; 0: it does not, or not for long enough to matter."""
        lasting_ns = now_ns - self._began_ns if self._began_ns is not None else 0
        return lasting_ns if lasting_ns >= _WARN_AFTER_NS else 0
