"""What the exporter remembers: rows, and counts of the last minutes."""

from __future__ import annotations

import random
from bisect import bisect_left
from typing import Any

import pytest

from linepool.exporter.history import COLUMNS, ROWS, History, with_waiting
from linepool.exporter.source import Snapshot
from linepool.exporter.usage import Usage
from linepool.ipc.figures import BOUNDS_NS, BUCKETS, CommandFigures, quantile_ns
from tests.examples.page_scenes import FAILURES
from tests.examples.pictures import STATE


def buckets(*durations_s: float) -> tuple[int, ...]:
    """Return the buckets of durations."""
    counts = [0] * BUCKETS
    for duration in durations_s:
        counts[bisect_left(BOUNDS_NS, round(duration * 1e9))] += 1
    return tuple(counts)


def command(*durations_s: float, name: str = "ADD", **failed: int) -> CommandFigures:
    """Return the figures of a command."""
    sum_ns = round(sum(durations_s) * 1e9)
    return CommandFigures(
        name, sum_ns, {**dict.fromkeys(FAILURES, 0), **failed}, buckets(*durations_s)
    )


def snapshot(
    at: float, *commands: CommandFigures, queue: tuple[float, ...] = (), **counters: int
) -> Snapshot:
    """Return a server at one moment."""
    state = {**STATE, "counters": {**STATE["counters"], **counters}}
    usage = Usage({}, {}, {}, 0)
    return Snapshot(at, 5000 + at, state, list(commands), command(*queue), [], [], usage, 0, 0, 0)


def last_row(history: History) -> dict[str, Any]:
    """Return the newest row by the names of its columns."""
    return dict(zip(COLUMNS, history.after(0)[-1], strict=True))


def test_a_row_tells_what_has_happened_since_the_one_before():
    history = History()
    history.add(snapshot(1, command(0.1), kills=1))
    history.add(
        snapshot(3, command(0.1, 0.1, 0.1, 4, timeout=1, client_error=1), kills=2, crashes=1)
    )

    row = last_row(history)

    assert (row["at"], row["busy"], row["total"], row["max"]) == (5003, 2, 4, 8)
    assert (row["requests"], row["failed"], row["deaths"]) == (1.5, 0.5, 2)
    assert row["p50_s"] == pytest.approx(0.1, rel=0.1)
    assert row["p99_s"] == pytest.approx(4, rel=0.2)


def test_durations_are_those_of_the_last_seconds():
    history = History()
    for second in range(10):
        history.add(snapshot(second, command(*[9.0] * min(second, 3))))

    assert last_row(history)["p99_s"] == 0


def test_rows_are_given_after_a_number_and_kept_for_an_hour():
    history = History()
    history.add(snapshot(-1))
    assert history.after(0) == []
    for second in range(ROWS + 10):
        history.add(snapshot(second))

    assert len(history.after(0)) == ROWS
    assert history.newest == 5000 + ROWS + 9
    assert [row[0] for row in history.after(history.newest - 2)] == [
        5000 + ROWS + 8,
        5000 + ROWS + 9,
    ]
    assert history.after(history.newest) == []
    assert (
        len(history.after(history.newest + 1)) == ROWS
    )  # of another exporter, or a clock set back


def test_what_is_recent_is_of_the_last_five_minutes():
    history = History()
    for second in range(600):
        count = min(second, 400)
        history.add(snapshot(second, command(*[0.1] * count), command(1, name="OLD")))

    over_s, (recent,) = history.recent()

    assert over_s == 299
    assert (recent.name, recent.count) == ("ADD", 100)


def test_durations_and_waits_are_added():
    chance = random.Random(7)
    took = [chance.expovariate(1 / 0.2) for _ in range(2000)]
    waited = [chance.expovariate(1 / 0.5) for _ in range(2000)]
    both = sorted(took[at] + waited[at] for at in range(2000))

    found = with_waiting(buckets(*took), buckets(*waited))

    for share in (0.5, 0.99):
        wanted = both[round(share * 2000)]
        assert quantile_ns(found, share) / 1e9 == pytest.approx(wanted, rel=0.12)
    assert with_waiting(buckets(1, 2), buckets()) == list(buckets(1, 2))
