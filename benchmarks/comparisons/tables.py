"""Turn what was measured into Markdown tables, with ratios to linepool."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence

from attrs import frozen

from benchmarks import harness
from benchmarks.comparisons.crowd import Outcome
from benchmarks.comparisons.trials import CLIENTS, CONNECTIONS, Report, Size

NONE = "-"


@frozen
class Fact:
    """A row: what it is called, and what it says of a server.

    Attributes:
        text: The cell.
        value: The number that ratios are made of; None: there are none.
    """

    name: str
    text: Callable[[Report], str]
    value: Callable[[Report], float] | None = None


def ratio(value: float, ours: float) -> str:
    """Return how many times linepool's number another is; NONE if that says nothing."""
    if not (math.isfinite(value) and math.isfinite(ours)) or value <= 0 or ours <= 0:
        return NONE
    found = value / ours
    if found < 0.01:
        return "< 0.01"
    return f"{found:.0f}" if found >= 10 else f"{found:.2f}"


def table(facts: Sequence[Fact], ours: Report, peers: Sequence[Report]) -> str:
    """Return a table with a column for each server, and one for the ratio of each peer to linepool."""
    all_of = [*peers, ours]
    has_ratios = any(fact.value for fact in facts)
    headings = ["", *(report.contender.title for report in all_of)]
    headings += [f"{report.contender.title} / linepool" for report in peers if has_ratios]
    rows = []
    for fact in facts:
        row = [fact.name, *(fact.text(report) for report in all_of)]
        if has_ratios:
            row += [_ratio(fact, report, ours) for report in peers]
        rows.append(row)
    return harness.table(headings, rows)


def _ratio(fact: Fact, report: Report, ours: Report) -> str:
    return ratio(fact.value(report), fact.value(ours)) if fact.value else NONE


def failures(failed: Counter[str]) -> str:
    """Return how many requests failed, by how."""
    kinds = ", ".join(f"{count} {kind}" for kind, count in failed.most_common())
    return kinds or "0"


def waited(outcome: Outcome) -> str:
    """Return the longest wait of a client in seconds; ">=": it still waited at the end."""
    return ("≥ " if outcome.is_held else "") + f"{outcome.longest:.2f}"


def milliseconds(outcome: Outcome) -> str:
    """Return p50 and p99."""
    return f"{outcome.percentile(0.5) * 1000:.0f} / {outcome.percentile(0.99) * 1000:.0f}"


def _size(size: Size) -> str:
    return f"{size.processes} ({size.threads})"


def _or_none(outcome: Outcome | None, text: Callable[[Outcome], str]) -> str:
    return NONE if outcome is None else text(outcome)


SPEED = (
    Fact("requests/s", lambda r: f"{r.speed.rps:,.0f}", lambda r: r.speed.rps),
    Fact("server CPU per request, µs", lambda r: f"{r.speed.cpu_us:.1f}", lambda r: r.speed.cpu_us),
)
HANG = (
    Fact(f"other clients held up, of {CLIENTS}", lambda r: str(r.hang.others.held_up)),
    Fact(
        "longest wait of another client, s",
        lambda r: waited(r.hang.others),
        lambda r: r.hang.others.longest,
    ),
    Fact("requests of others that failed", lambda r: failures(r.hang.others.failed)),
    Fact("the client that hangs reads", lambda r: r.hang.reads),
    Fact("the server still computes at the end", lambda r: "yes" if r.hang.computes else "no"),
    Fact("an operator must", lambda r: r.contender.remedy),
)
STALL = (
    Fact(
        f"other clients held up, of {CLIENTS}",
        lambda r: _or_none(r.stall, lambda found: str(found.held_up)),
    ),
    Fact(
        "longest wait of another client, s",
        lambda r: _or_none(r.stall, waited),
        lambda r: r.stall.longest if r.stall else math.nan,
    ),
)
CRASH = (
    Fact("its client reads", lambda r: r.crash.reads),
    Fact("requests of others that failed", lambda r: failures(r.crash.others.failed)),
    Fact("connections of others that ended", lambda r: str(r.crash.others.cut)),
    Fact(
        "served again after, ms",
        lambda r: f"{r.crash.served_after * 1000:.0f}",
        lambda r: r.crash.served_after,
    ),
)
DEPLOYMENT = (
    Fact("new code arrives by", lambda r: r.contender.deploys_by),
    Fact("requests that failed", lambda r: failures(r.deployment.others.failed)),
    Fact("connections that ended", lambda r: str(r.deployment.others.cut)),
    Fact(
        "longest wait of a client, s",
        lambda r: waited(r.deployment.others),
        lambda r: r.deployment.others.longest,
    ),
    Fact(
        "served by new code after, s",
        lambda r: f"{r.deployment.took:.2f}",
        lambda r: r.deployment.took,
    ),
)
GROWTH = (
    Fact("before: p50 / p99, ms", lambda r: milliseconds(r.growth.before)),
    Fact(
        "at three times the load: p50 / p99, ms",
        lambda r: milliseconds(r.growth.during),
        lambda r: r.growth.during.percentile(0.99) if r.contender.can_wait else math.nan,
    ),
    Fact("requests that failed", lambda r: failures(r.growth.during.failed)),
    Fact("before: processes (threads)", lambda r: _size(r.growth.size_before)),
    Fact("at three times the load: processes (threads)", lambda r: _size(r.growth.size_during)),
)
SECTIONS = {
    "speed": (f"Plain requests, {CONNECTIONS} connections", SPEED),
    "hang": ("A request that computes without end", HANG),
    "stall": (f"{CLIENTS} requests that wait at once for 1.5 s", STALL),
    "crash": ("A process that crashes", CRASH),
    "deploy": ("New code", DEPLOYMENT),
    "growth": ("Three times the load", GROWTH),
}


def overview(reports: Sequence[Report], lines: Callable[[str], int]) -> str:
    """Return one row for each server.

    Args:
        reports: What was measured.
        lines: From the name of a service's file to its lines of code.
    """
    headings = (
        "server",
        "lines of code",
        "CPU µs per request",
        f"hang: others held up, of {CLIENTS}",
        "hang: its client reads",
        "crash: failed requests of others",
        "crash: served again after, ms",
        "new code: failed requests",
        "new code: connections that ended",
        "load x3: p99, ms",
    )
    rows = [
        (
            _linked(report),
            lines(report.contender.file),
            f"{report.speed.cpu_us:.1f}",
            report.hang.others.held_up,
            report.hang.reads,
            report.crash.others.failed.total(),
            f"{report.crash.served_after * 1000:.0f}",
            report.deployment.others.failed.total(),
            report.deployment.others.cut,
            f"{report.growth.before.percentile(0.99) * 1000:.0f} → "
            f"{report.growth.during.percentile(0.99) * 1000:.0f}",
        )
        for report in reports
    ]
    return harness.table(headings, rows)


def _linked(report: Report) -> str:
    contender = report.contender
    return f"[{contender.title}]({contender.page}.md)" if contender.page else contender.title
