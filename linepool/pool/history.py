"""The history: what the master remembers of its pool in order to plan.

It is fed with every edge in the order of its time, not with samples, so its figures are exact: a
moment in which nobody was idle is not missed because the master was looking elsewhere.
"""

from __future__ import annotations

import math
from collections import deque

from linepool.pool.policy import Snapshot
from linepool.pool.scoreboard import Tally
from linepool.pool.status import State
from linepool.settings import Settings

_REPAY = 5
"""How much faster than it grew the time without anybody idle is forgotten while somebody is."""
_MOMENT_NS = 2_000_000
"""Who is taken so soon after he said that he is idle had only not looked who waits."""
_WARN_NS = 60_000_000_000
_LASTING_NS = 1_000_000_000


class History:
    """Who was idle and who was busy within the window, the forks, and the boots that failed."""

    def __init__(self, settings: Settings, now_ns: int) -> None:
        """Begin with no worker; ``grow_delay`` and ``shrink_window`` stay as they are now."""
        self.boot_failures = 0
        self._grow_delay_ns = round(settings.grow_delay * 1e9)
        self._window_ns = round(settings.shrink_window * 1e9)
        self._since_ns = now_ns
        self._now_ns = now_ns
        self._idle: set[int] = set()
        self._busy: set[int] = set()
        self._idle_past = Sliding(0)
        self._busy_past = Sliding(0)  # negated: its minimum is the peak
        self._none_idle_ns = 0
        self._flipped_ns = now_ns  # when nobody became somebody, or the reverse
        self._budget = Budget()
        self._spawned_ns: int | None = None
        self._failed_ns = now_ns

    def worker_changed(self, slot: int, state: State | None, at_ns: int) -> None:
        """Note what a worker has said; None: it has gone, or has been told to.

        Records of several workers must come in the order of their time. One that comes too late all
        the same counts as of the latest moment known.
        """
        if state is State.READY:
            self.boot_failures = 0
        (self._idle.add if state in (State.READY, State.IDLE) else self._idle.discard)(slot)
        (self._busy.add if state is State.TAKEN else self._busy.discard)(slot)
        self.changed(len(self._idle), len(self._busy), at_ns)

    def changed(self, idle: int, busy: int, at_ns: int) -> None:
        """Note how many workers are idle and how many are busy from a moment on."""
        at_ns = max(at_ns, self._now_ns)
        if bool(idle) != bool(self._idle_past.value):
            self._account(at_ns)
        self._now_ns = at_ns
        self._idle_past.set(idle, at_ns)
        self._busy_past.set(-busy, at_ns)

    def _account(self, at_ns: int) -> None:
        """Add up for how long nobody was idle, or take from it for how long somebody was."""
        past_ns = at_ns - self._flipped_ns
        self._flipped_ns = at_ns
        if self._idle_past.value:
            # Twice the delay is remembered, so that right after such a moment it is still over.
            known_ns = min(self._none_idle_ns, 2 * self._grow_delay_ns)
            paid_ns = _REPAY * max(0, past_ns - _MOMENT_NS)
            self._none_idle_ns = max(0, known_ns - paid_ns)
        else:
            self._none_idle_ns += past_ns

    def spawned(self, settings: Settings, now_ns: int) -> None:
        """Note that a worker has been forked."""
        self._spawned_ns = now_ns
        self._budget.spend(settings, now_ns)

    def boot_failed(self, now_ns: int) -> None:
        """Note that a worker died before it was ready, or could not be forked."""
        self.boot_failures += 1
        self._failed_ns = now_ns

    def restart(self, now_ns: int) -> None:
        """Forget who was idle or busy: records were lost, so the past is not known."""
        self._since_ns = self._flipped_ns = self._now_ns = max(now_ns, self._now_ns)
        self._none_idle_ns = 0
        self._idle_past = Sliding(self._idle_past.value)
        self._busy_past = Sliding(self._busy_past.value)

    def idle_min(self, now_ns: int) -> int | None:
        """Return how many were idle at least within the window; None: it is not full yet."""
        if now_ns - self._since_ns < self._window_ns:
            return None
        return self._idle_past.least(now_ns - self._window_ns)

    def busy_max(self, now_ns: int) -> int:
        """Return how many were busy at once, at most, within the window."""
        return -self._busy_past.least(now_ns - self._window_ns)

    def steady_for(self, now_ns: int) -> float:
        """Return the seconds for which these two stay as they are, if nothing happens."""
        full_ns = self._since_ns + self._window_ns
        if now_ns < full_ns:
            return (full_ns - now_ns) / 1e9
        begin_ns = now_ns - self._window_ns
        ends_ns = [past.least_until(begin_ns) for past in (self._idle_past, self._busy_past)]
        return min((ns - begin_ns for ns in ends_ns if ns is not None), default=math.inf) / 1e9

    def none_idle_for(self, now_ns: int) -> float:
        """Return the seconds for which nobody has been idle.

        A worker that says IDLE before it looks whether somebody waits, or is READY for those who do,
        is idle for a moment that means nothing. So such moments do not end the time; they shorten it.
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
        """Return what the policy looks at.

        Args:
            tally: The workers by state, now.
            settings: Those in force, now.
            now_ns: The present on the monotonic clock.
            backlog: Connections that wait for a worker.
            cpu_bound: The workers already keep all processors busy.
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
        )


class Sliding:
    """The exact minimum of a value over a window that slides, as the value goes up and down.

    It remembers when a value was left for the last time, and only if no smaller one has been held
    since: the others cannot become the minimum any more. So it is never longer than there are values.
    """

    def __init__(self, value: int) -> None:
        self.value = value
        self._left: deque[tuple[int, int]] = deque()  # (at_ns, value), both rising

    def set(self, value: int, at_ns: int) -> None:
        """Change the value."""
        if value == self.value:
            return
        while self._left and self._left[-1][1] >= self.value:
            self._left.pop()
        self._left.append((at_ns, self.value))
        self.value = value

    def least(self, since_ns: int) -> int:
        """Return the least value held after that moment, which never goes back."""
        while self._left and self._left[0][0] <= since_ns:
            self._left.popleft()
        return min(self._left[0][1], self.value) if self._left else self.value

    def least_until(self, since_ns: int) -> int | None:
        """Return what ``since_ns`` must reach to make the least value rise; None: it would not."""
        return self._left[0][0] if self.least(since_ns) < self.value else None


class Budget:
    """How many workers may be forked: a bucket that ``max_spawn_rate`` fills.

    It holds the forks of one second, or as many as the minimum of the pool if that is more, so that
    a pool comes up at once. What it remembers is the moment at which it will be full again.
    """

    def __init__(self) -> None:
        self._full_ns = 0

    def allowance(self, settings: Settings, now_ns: int) -> int:
        """Return how many may be forked now."""
        holds = _burst(settings) * _price_ns(settings)
        return max(0, (holds - max(0, self._full_ns - now_ns)) // _price_ns(settings))

    def next_in(self, settings: Settings, now_ns: int) -> float:
        """Return the seconds until it is one more; 0: the bucket is full."""
        lacks = max(0, self._full_ns - now_ns)
        spent = min(-(-lacks // _price_ns(settings)), _burst(settings))
        return (lacks - (spent - 1) * _price_ns(settings)) / 1e9 if lacks else 0.0

    def spend(self, settings: Settings, now_ns: int) -> None:
        """Note a fork."""
        self._full_ns = max(self._full_ns, now_ns) + _price_ns(settings)


def _price_ns(settings: Settings) -> int:
    """Return how long the bucket takes to be filled by one fork."""
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
        """Take what is seen now; return whether to warn: when it has lasted a second, then once a minute.

        The time between two looks counts if both of them saw it.
        """
        if not saturated:
            self._began_ns = None
        elif self._began_ns is None:
            self._began_ns = now_ns
        if saturated and self._since_ns is not None:
            self.seconds += (now_ns - self._since_ns) / 1e9
        self._since_ns = now_ns if saturated else None
        lasting = self._began_ns is not None and now_ns - self._began_ns >= _LASTING_NS
        due = lasting and (self._warned_ns is None or now_ns - self._warned_ns >= _WARN_NS)
        if saturated and due:
            self._warned_ns = now_ns
        return saturated and due
