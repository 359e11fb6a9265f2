"""What the exporter remembers: a row per second for an hour, and counts of the last minutes. Pure: no I/O."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Sequence

from linepool.exporter.source import Snapshot
from linepool.exporter.verdict import FAILURES
from linepool.ipc.figures import BOUNDS_NS, BUCKETS, MIDDLES_NS, CommandFigures, quantile_ns

ROWS = 3600
COLUMNS = (
    "at",
    "busy",
    "total",
    "max",
    "waiting",
    "requests",
    "failed",
    "p50_s",
    "p99_s",
    "queue_p99_s",
    "deaths",
)
"""What a row has: when it was, in seconds since the epoch; workers, and clients that wait; requests per
second, and failed ones; how long half of the requests of the last seconds took at most, and 99 of 100, with
waiting; how long 99 of 100 waited at most; workers that were killed or that died since the row before."""

_SECONDS = 5  # over which a row's durations are
_RECENT_S = 300.0
_EVERY_S = 5.0  # between two looks at the counts of commands that are kept

Row = tuple[float, ...]


class _Look:
    """The counts at one moment. What is as it was at the look before is the same object: it is kept once."""

    def __init__(self, snapshot: Snapshot, before: _Look | None) -> None:
        earlier = before.commands if before else {}
        self.at = snapshot.at
        self.queue = snapshot.queue
        self.commands: dict[str, CommandFigures] = {}
        for one in snapshot.commands:
            then = earlier.get(one.name)
            self.commands[one.name] = then if then == one else one
        counters = snapshot.state["counters"]
        self.deaths = counters["kills"] + counters["crashes"]

    def since(self, before: _Look) -> list[CommandFigures]:
        """Return what has happened with each command that was served since an earlier look."""
        changed = []
        for name, now in self.commands.items():
            then = before.commands.get(name)
            if then is not now:
                changed.append(now.since(then) if then else now)
        return [one for one in changed if one.count]


class History:
    """The last hour, and the counts of the last five minutes.

    Attributes:
        newest: The number of the newest row; 0: there is none. Numbers begin with the time in seconds: those
            of an exporter that takes over are larger.
    """

    def __init__(self) -> None:
        self.newest = 0
        self._rows: deque[Row] = deque(maxlen=ROWS)
        self._last: deque[_Look] = deque(maxlen=_SECONDS + 1)
        self._kept: deque[_Look] = deque()

    def add(self, snapshot: Snapshot) -> None:
        """Take note of the server as it is now."""
        before = self._last[-1] if self._last else None
        look = _Look(snapshot, before)
        self._last.append(look)
        if not self._kept or look.at - self._kept[-1].at >= _EVERY_S:
            self._kept.append(look)
        while self._kept[0].at < look.at - _RECENT_S:
            self._kept.popleft()
        if before:
            self._rows.append(self._row(snapshot, before))
            self.newest = self.newest + 1 if self.newest else int(snapshot.wall)

    def after(self, number: int) -> list[Row]:
        """Return the rows after a number; all if that is none of theirs."""
        count = self.newest - number
        rows = list(self._rows)
        return rows[len(rows) - count :] if 0 <= count < len(rows) else rows

    def recent(self) -> tuple[float, list[CommandFigures]]:
        """Return over how many seconds it looks back, and what has happened with each command meanwhile."""
        first, last = self._kept[0], self._last[-1]
        return last.at - first.at, last.since(first)

    def _row(self, snapshot: Snapshot, before: _Look) -> Row:
        now, first, tally = self._last[-1], self._last[0], snapshot.state["tally"]
        waited = now.queue.since(first.queue).buckets
        took = with_waiting(_added(one.buckets for one in now.since(first)), waited)
        passed = max(now.at - before.at, 0.001)
        done = now.since(before)
        return (
            round(snapshot.wall, 2),
            tally["busy"],
            tally["total"],
            tally["max"],
            snapshot.state["waiting"],
            round(sum(one.count for one in done) / passed, 2),
            round(sum(one.failed[name] for one in done for name in FAILURES) / passed, 2),
            quantile_ns(took, 0.5) / 1e9,
            quantile_ns(took, 0.99) / 1e9,
            quantile_ns(waited, 0.99) / 1e9,
            max(0, now.deaths - before.deaths),
        )


def with_waiting(took: Sequence[int], waited: Sequence[int]) -> list[int]:
    """Return the buckets of the sums of two durations, each in buckets, that do not depend on one another."""
    if not any(waited):
        return list(took)
    sums = [0] * BUCKETS
    waits = [(MIDDLES_NS[number], count) for number, count in enumerate(waited) if count]
    for number, count in enumerate(took):
        if count:
            for wait_ns, times in waits:
                sums[bisect_left(BOUNDS_NS, MIDDLES_NS[number] + wait_ns)] += count * times
    return sums


def _added(all_buckets: Iterable[Sequence[int]]) -> list[int]:
    return [sum(counts) for counts in zip([0] * BUCKETS, *all_buckets, strict=True)]
