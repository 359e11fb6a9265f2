"""The simulation: a pool without processes, scaled by the same history and policy as a real one.

Events are processed in order of time, in whole nanoseconds. Nothing waits, and nothing is random.
"""

from __future__ import annotations

import heapq
import math
from array import array
from collections import deque
from collections.abc import Iterator, Sequence

from attrs import define, evolve, field, frozen

from linepool.pool import policy
from linepool.pool.history import History
from linepool.pool.scoreboard import Tally
from linepool.pool.status import State
from linepool.pool.traces import Arrival
from linepool.settings import Settings

DRAIN_NS = 10_000_000
"""Shortest time between two reads of the status pipes by the master."""
_SAMPLES = 2000
"""Approximate number of samples kept of a long trace."""
_DONE, _READY, _ARRIVES, _TURN = range(4)  # kinds of events; at the same time, in this order


@frozen
class Moment:
    """The pool after an event.

    Attributes:
        at_ns: The time of the event.
        tally: The workers by state.
        backlog: Connections that no worker has taken.
        waited_ns: How long the client waited that a worker has just taken, if one has.
        spawned: How many workers the master has just forked.
        retired: How many workers the master has just retired.
        why: The reason for that.
    """

    at_ns: int
    tally: Tally
    backlog: int
    waited_ns: int = 0
    spawned: int = 0
    retired: int = 0
    why: str = ""


@frozen
class Sample:
    """The pool from one moment until the next sample.

    Attributes:
        at: When the sample begins, in seconds.
        workers: The size of the pool.
        busy: The peak of busy workers.
        idle: The minimum of idle workers.
        backlog: The peak of waiting connections.
        waited: The longest wait of a client that was taken, in seconds.
    """

    at: float
    workers: int
    busy: int
    idle: int
    backlog: int
    waited: float


@frozen
class Result:
    """The result of a simulation.

    Attributes:
        samples: The pool over time.
        changes: The moments at which workers were forked or retired.
        waits: How long each client waited, in seconds, ascending.
        served_at: When the last client was done, in seconds; averages are up to then.
        mean_workers: Average size of the pool.
        mean_busy: Average number of busy workers.
        saturated: Seconds at the maximum with connections waiting.
    """

    samples: Sequence[Sample]
    changes: Sequence[Moment]
    waits: Sequence[float]
    served_at: float
    mean_workers: float
    mean_busy: float
    saturated: float

    @property
    def forks(self) -> int:
        """How many workers were forked after the initial ones."""
        return sum(change.spawned for change in self.changes)

    @property
    def retirements(self) -> int:
        """How many workers were retired."""
        return sum(change.retired for change in self.changes)

    @property
    def largest(self) -> Sample:
        """The first sample with the peak size of the pool."""
        return max(self.samples, key=lambda sample: sample.workers)

    def percentile(self, percent: float) -> float:
        """Return a percentile of the waits, in seconds."""
        return self.waits[max(0, math.ceil(len(self.waits) * percent / 100) - 1)]


def simulate(trace: Sequence[Arrival], settings: Settings, boot: float = 0.01) -> Result:
    """Simulate a pool under a trace.

    Args:
        trace: The clients in order of arrival; at least one.
        settings: The settings of the pool.
        boot: Seconds from a worker's fork until it is ready.
    """
    simulation = Simulation(trace, settings, round(boot * 1e9))
    before = Moment(0, Tally(idle=settings.workers.min), 0)
    samples = _Samples(before, max(DRAIN_NS, trace[-1].at_ns // _SAMPLES))
    changes = []
    workers_ns = busy_ns = saturated_ns = 0  # sums over time, so the first two are areas
    served_ns = served_workers_ns = 0
    for moment in simulation.run():
        past_ns = moment.at_ns - before.at_ns
        workers_ns += before.tally.total * past_ns
        busy_ns += before.tally.busy * past_ns
        seen = policy.Snapshot(before.tally, backlog=before.backlog)
        saturated_ns += past_ns if policy.is_saturated(seen, settings) else 0
        if before.tally.busy:
            served_ns, served_workers_ns = moment.at_ns, workers_ns
        samples.add(moment)
        if moment.spawned or moment.retired:
            changes.append(moment)
        before = moment
    return Result(
        samples=samples.all(),
        changes=changes,
        waits=[ns / 1e9 for ns in sorted(simulation.waited_ns)],
        served_at=served_ns / 1e9,
        mean_workers=served_workers_ns / max(1, served_ns),
        mean_busy=busy_ns / max(1, served_ns),
        saturated=saturated_ns / 1e9,
    )


class _Samples:
    """Reduces many moments to few samples: one per change of size, and one per step."""

    def __init__(self, moment: Moment, step_ns: int) -> None:
        self._step_ns = step_ns
        self._done: list[Sample] = []
        self._last = moment
        self._at_ns = moment.at_ns
        self._sample = _sample(moment, moment.at_ns)

    def add(self, moment: Moment) -> None:
        """Add the next moment."""
        ends_ns = self._at_ns + self._step_ns
        if moment.at_ns > ends_ns:
            # The figures of this step do not apply to a quiet period after it.
            self._begin(evolve(self._last, waited_ns=0), ends_ns)
        if moment.at_ns >= ends_ns or moment.tally.total != self._sample.workers:
            self._begin(moment, moment.at_ns)
        else:
            self._sample = evolve(
                self._sample,
                busy=max(self._sample.busy, moment.tally.busy),
                idle=min(self._sample.idle, moment.tally.idle),
                backlog=max(self._sample.backlog, moment.backlog),
                waited=max(self._sample.waited, moment.waited_ns / 1e9),
            )
        self._last = moment

    def all(self) -> list[Sample]:
        """Return the samples, and one for the end."""
        self._begin(evolve(self._last, waited_ns=0), self._last.at_ns)
        return [*self._done, self._sample]

    def _begin(self, moment: Moment, at_ns: int) -> None:
        self._done.append(self._sample)
        self._at_ns = at_ns
        self._sample = _sample(moment, at_ns)


def _sample(moment: Moment, at_ns: int) -> Sample:
    tally = moment.tally
    waited = moment.waited_ns / 1e9
    return Sample(at_ns / 1e9, tally.total, tally.busy, tally.idle, moment.backlog, waited)


@define
class Simulation:
    """One run of a trace.

    Attributes:
        boot_ns: Time from a worker's fork until it is ready.
        waited_ns: How long each client waited, in the order in which workers took them.
    """

    trace: Sequence[Arrival]
    settings: Settings
    boot_ns: int
    waited_ns: array[int] = field(factory=lambda: array("q"), init=False)
    _events: list[tuple[int, int, int]] = field(
        factory=list, init=False
    )  # time, kind, slot or index of the arrival
    _edges: list[tuple[int, State, int]] = field(factory=list, init=False)  # written, not yet read
    _idle: list[int] = field(factory=list, init=False)
    _busy: set[int] = field(factory=set, init=False)
    _starting: set[int] = field(factory=set, init=False)
    _waiting: deque[Arrival] = field(factory=deque, init=False)
    _slots: int = field(default=0, init=False)  # allocated so far; slots are not reused
    _turn_ns: float = field(default=math.inf, init=False)
    _drained_ns: int = field(default=-DRAIN_NS, init=False)
    _watch: bool = field(default=False, init=False)
    _history: History = field(init=False)

    def run(self) -> Iterator[Moment]:
        """Run from an idle pool until no event is left."""
        self._history = History(self.settings, 0)
        for _ in range(self.settings.workers.min):
            self._idle.append(self._slots)
            self._report(self._slots, State.READY, 0)
            self._slots += 1
        for number, arrival in enumerate(self.trace):
            self._events.append((arrival.at_ns, _ARRIVES, number))
        heapq.heapify(self._events)
        while self._events:
            now_ns, kind, subject = heapq.heappop(self._events)
            if kind != _TURN:
                taken = len(self.waited_ns)
                (self._done, self._ready, self._arrives)[kind](subject, now_ns)
                waited_ns = max(self.waited_ns[taken:], default=0)
                yield Moment(now_ns, self._tally(), len(self._waiting), waited_ns)
            elif now_ns == self._turn_ns:
                plan = self._turn(now_ns)
                yield Moment(
                    now_ns,
                    self._tally(),
                    len(self._waiting),
                    spawned=plan.spawn,
                    retired=plan.retire,
                    why=plan.why,
                )

    def _tally(self) -> Tally:
        return Tally(len(self._starting), len(self._idle), len(self._busy))

    # Clients and workers.

    def _arrives(self, number: int, now_ns: int) -> None:
        self._waiting.append(self.trace[number])
        if self._idle:
            self._take(self._idle.pop(), now_ns, was_free=True)
        elif self._watch:
            self._turn_at(now_ns)

    def _ready(self, slot: int, now_ns: int) -> None:
        self._starting.remove(slot)
        self._report(slot, State.READY, now_ns)
        if self._waiting:
            self._take(slot, now_ns, was_free=True)
        else:
            self._idle.append(slot)

    def _done(self, slot: int, now_ns: int) -> None:
        if self._waiting:
            self._take(slot, now_ns, was_free=False)
        else:
            self._busy.remove(slot)
            self._idle.append(slot)
            self._report(slot, State.IDLE, now_ns)

    def _take(self, slot: int, now_ns: int, *, was_free: bool) -> None:
        """Give the longest-waiting client to a worker; record TAKEN only if the worker was idle."""
        arrival = self._waiting.popleft()
        self.waited_ns.append(now_ns - arrival.at_ns)
        heapq.heappush(self._events, (now_ns + arrival.service_ns, _DONE, slot))
        if was_free:
            self._busy.add(slot)
            self._report(slot, State.TAKEN, now_ns)

    def _report(self, slot: int, state: State, now_ns: int) -> None:
        """Write a status record."""
        self._edges.append((slot, state, now_ns))
        self._turn_at(max(now_ns, self._drained_ns + DRAIN_NS))

    # The master.

    def _turn_at(self, at_ns: int) -> None:
        """Schedule a turn of the master, if none is scheduled earlier."""
        if at_ns < self._turn_ns:
            self._turn_ns = at_ns
            heapq.heappush(self._events, (at_ns, _TURN, 0))

    def _turn(self, now_ns: int) -> policy.Plan:
        """Read the records, plan, and act on the plan."""
        self._turn_ns = math.inf
        if self._edges:
            self._drained_ns = now_ns
        for slot, state, at_ns in self._edges:
            self._history.worker_changed(slot, state, at_ns)
        self._edges.clear()
        snapshot = self._history.snapshot(
            self._tally(), self.settings, now_ns, backlog=len(self._waiting)
        )
        plan = policy.plan(snapshot, self.settings)
        for _ in range(plan.spawn):
            self._history.spawned(self.settings, now_ns)
            self._starting.add(self._slots)
            heapq.heappush(self._events, (now_ns + self.boot_ns, _READY, self._slots))
            self._slots += 1
        for _ in range(plan.retire):
            self._history.worker_changed(self._idle.pop(0), None, now_ns)
        self._watch = plan.watch
        if plan.again_in:
            self._turn_at(now_ns + math.ceil(plan.again_in * 1e9))
        return plan
