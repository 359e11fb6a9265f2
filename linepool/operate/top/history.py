"""The looks of the last minutes, and the view that is made of them. Pure: no I/O, no clock."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence

from attrs import frozen

from linepool.exporter.verdict import Looks, Verdict, verdict
from linepool.ipc.figures import BOUNDS_NS
from linepool.ipc.figures.buckets import quantile_ns
from linepool.operate.top.looks import Command, Incident, Look, Worker

NEAR = 0.8
"""The share of its time limit from which a request is called near it."""
RECENT_S = 10.0
"""The seconds that the figures are of."""
_COMMANDS_S = 60.0  # those that the commands are of
_POINTS_S = 300.0  # those that the sparklines show
_EPSILON_S = 0.05  # a look that comes that much earlier still counts as one of that time


@frozen
class Point:
    """The figures at one moment."""

    at: float
    busy: int
    waiting: int
    requests: float
    failed: float
    p50_s: float
    p99_s: float
    waited_s: float


@frozen
class CommandRow:
    """A command in a view.

    Attributes:
        share: Of the time of all commands, from 0 to 1.
        rate: Requests per second.
        failed: How many of them, as a share.
    """

    name: str
    share: float
    rate: float
    p50_s: float
    p99_s: float
    failed: float
    killed: int


@frozen
class View:
    """What is shown.

    Attributes:
        look: The last one.
        points: The figures of the last minutes, the newest last.
        verdict: How the server is; its texts have names that the server gives.
        waiting_s: For how long clients have been waiting; 0: none wait.
        running: The workers with a request, those nearest to their limits first, then those that ran longest.
        commands: By the time that they took.
        period_s: How many seconds the commands are of; 0: since the start of the server.
        incidents: The newest first.
    """

    look: Look
    points: Sequence[Point]
    verdict: Verdict
    waiting_s: float
    running: Sequence[Worker]
    commands: Sequence[CommandRow]
    period_s: float
    incidents: Sequence[Incident]

    @property
    def point(self) -> Point:
        """The figures now."""
        return self.points[-1]


class History:
    """The looks at one server; a restarted one begins a new history."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._looks: deque[Look] = deque()
        self._points: deque[Point] = deque()
        self._judged = Looks()

    def add(self, look: Look) -> None:
        """Add a look."""
        if self._looks:
            last = self._looks[-1]
            if look.pid != last.pid or look.at < last.at:
                self._begin()
        self._looks.append(look)
        self._judged.add(look.at, look.judged, look.counted)
        self._points.append(self._point())
        # One that is older is kept, to compare with.
        while len(self._looks) > 2 and self._looks[1].at <= look.at - _COMMANDS_S - _EPSILON_S:
            self._looks.popleft()
        while self._points[0].at < look.at - _POINTS_S:
            self._points.popleft()

    def view(self, *, of_all_time: bool = False) -> View:
        """Return what is to be shown. Pre-condition: there was a look.

        Args:
            of_all_time: Show the commands since the start of the server, not those of the last minute.
        """
        look = self._looks[-1]
        first = self._before(_COMMANDS_S)
        period = 0.0 if of_all_time else look.at - first.at
        if period < RECENT_S:  # which is too short to tell
            period = 0.0
        before: Mapping[str, Command] = first.commands if period else {}
        changed = [one.since(before.get(name)) for name, one in look.commands.items()]
        recent = self._judged.recent(look.at)
        running = [worker for worker in look.workers if worker.command]
        return View(
            look=look,
            points=tuple(self._points),
            verdict=verdict(look.judged, recent),
            waiting_s=recent.waiting_s,
            running=sorted(running, key=lambda one: (-(one.nearness // 0.1), -one.ran_s, one.slot)),
            commands=_rows(changed, period or look.at),
            period_s=period,
            incidents=sorted(look.incidents, key=lambda one: -one.last),
        )

    def _before(self, seconds: float) -> Look:
        """Return the look from so many seconds ago, or the first."""
        now = self._looks[-1].at
        for look in reversed(self._looks):
            if look.at <= now - seconds + _EPSILON_S:
                return look
        return self._looks[0]

    def _point(self) -> Point:
        now, before = self._looks[-1], self._before(RECENT_S)
        passed = now.at - before.at
        changed = [one.since(before.commands.get(name)) for name, one in now.commands.items()]
        if not passed:
            changed = []
        counts = _added(one.buckets for one in changed)
        waited = _added([now.queue.since(before.queue).buckets] if passed else [])
        return Point(
            at=now.at,
            busy=now.tally["busy"],
            waiting=now.waiting,
            requests=sum(one.requests for one in changed) / passed if passed else 0.0,
            failed=sum(one.failed for one in changed) / passed if passed else 0.0,
            p50_s=quantile_ns(counts, 0.5) / 1e9,
            p99_s=quantile_ns(counts, 0.99) / 1e9,
            waited_s=quantile_ns(waited, 0.99) / 1e9,
        )


def _added(several: Iterable[Mapping[int, int]]) -> list[int]:
    """Return the counts of all buckets, each the sum of several."""
    total = [0] * (len(BOUNDS_NS) + 1)
    for buckets in several:
        for number, count in buckets.items():
            if 0 <= number < len(total):
                total[number] += max(0, count)
    return total


def _rows(commands: Sequence[Command], period_s: float) -> list[CommandRow]:
    """Return the commands that were served, by the time that they took."""
    served = [one for one in commands if one.requests]
    total = sum(one.seconds for one in served)
    rows = []
    for one in sorted(served, key=lambda one: (-one.seconds, one.name)):
        counts = _added([one.buckets])
        rows.append(
            CommandRow(
                name=one.name,
                share=one.seconds / total if total else 0.0,
                rate=one.requests / period_s if period_s else 0.0,
                p50_s=quantile_ns(counts, 0.5) / 1e9,
                p99_s=quantile_ns(counts, 0.99) / 1e9,
                failed=one.failed / one.requests,
                killed=one.killed,
            )
        )
    return rows
