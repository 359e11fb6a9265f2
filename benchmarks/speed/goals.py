"""The goals for linepool, and whether the runs met them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median

from attrs import frozen

from benchmarks import harness
from benchmarks.speed import cases
from benchmarks.speed.results import CPU, MASTER, P50, P99, RATE, Figure, Results
from benchmarks.speed.servers import C_EPOLL, KEPT, MANY, OURS, STREAMS, UVLOOPS

# How a ratio is bounded, if the load generator was the limit of (linepool, another server).
_BOUNDS = {(False, False): "", (True, False): ">= ", (False, True): "<= ", (True, True): "? "}


@frozen
class Goal:
    """A limit for a figure of linepool in a case, mostly for its ratio to that of other servers.

    Attributes:
        case: Its name.
        other: What the other servers are called together; "": there are none.
        others: Their names; the best of them counts in each round.
        ours: The name of linepool's server.
        is_difference: The limit is for a difference instead of a ratio.
        unit: That of a figure or difference.
    """

    case: str
    figure: Figure
    sign: str
    limit: float
    other: str = ""
    others: Sequence[str] = ()
    ours: str = OURS
    is_difference: bool = False
    unit: str = ""

    def __str__(self) -> str:
        limit = f"{self.sign} {self.limit:g}{self.unit}"
        if self.is_difference:
            return f"{self.figure.name} - that of {self.other} {limit}"
        return f"{self.figure.name} {limit}" + f" x {self.other}" * bool(self.other)

    def values(self, results: Results) -> list[float]:
        """Return what was measured in each round."""
        if self.is_difference:
            return results.differences(self.case, self.ours, self.others, self.figure)
        if self.others:
            return results.ratios(self.case, self.ours, self.others, self.figure)
        return [self.figure.of(one) for one in results.of(self.case, self.ours).values()]

    def is_met(self, results: Results) -> bool | None:
        """Whether the median over the rounds meets it; None if there are no rounds."""
        values = self.values(results)
        if not values:
            return None
        value = median(values)
        return value >= self.limit if self.sign == ">=" else value <= self.limit

    def row(self, results: Results) -> list[str]:
        """Return its row in the table. Pre-condition: it was measured."""
        values = self.values(results)
        shown = [f"{value:.{1 if self.unit or not self.others else 2}f}" for value in values]
        low, high = min(shown, key=float), max(shown, key=float)
        middle = f"{median(values):.{1 if self.unit or not self.others else 2}f}"
        name = cases.BY_NAME[self.case].title
        if self.ours != OURS:
            name += f" ({self.ours})"
        return [name, str(self), f"{self._bound(results)}{middle} ({low} - {high})"]

    def _bound(self, results: Results) -> str:
        if self.figure != RATE:
            return ""
        others = any(results.is_limited(self.case, other) for other in self.others)
        return _BOUNDS[results.is_limited(self.case, self.ours), others]


def _uvloop(figure: Figure, sign: str, limits: dict[str, float]) -> Iterator[Goal]:
    for case, limit in limits.items():
        yield Goal(case, figure, sign, limit, "uvloop", UVLOOPS)


def _beside(
    names: Sequence[str], figure: Figure, sign: str, limit: float, other: str
) -> Iterator[Goal]:
    for case in names:
        yield Goal(case, figure, sign, limit, other, (other,))


_SESSION_64, _SESSION_128 = cases.SESSION
GOALS = [
    *_uvloop(CPU, "<=", {"pp64": 0.95, "pp16": 0.75, "pp2": 1.0, "pp1": 1.0}),
    *_uvloop(RATE, ">=", {"pp64": 1.05, "pp16": 1.15, "pp2": 1.0, "pp1": 1.0}),
    *_uvloop(P99, "<=", dict.fromkeys(cases.PING_PONG, 1.0)),
    *_uvloop(CPU, "<=", {"pl16": 0.65, "pl128": 0.5}),
    *_uvloop(RATE, ">=", {"pl16": 1.4, "pl128": 2.5}),
    *_uvloop(CPU, "<=", dict.fromkeys(cases.CONNECTING, 1.05)),
    *_uvloop(RATE, ">=", dict.fromkeys(cases.CONNECTING, 0.95)),
    *_uvloop(CPU, "<=", {_SESSION_64: 1.2, _SESSION_128: 0.8}),
    *_uvloop(RATE, ">=", {_SESSION_64: 0.9, _SESSION_128: 1.2}),
    *_uvloop(P50, "<=", dict.fromkeys(cases.RATES, 1.0)),
    *_uvloop(P99, "<=", dict.fromkeys(cases.RATES, 1.0)),
    *_uvloop(CPU, "<=", dict.fromkeys(cases.RATES, 1.3)),
    *_beside(cases.PING_PONG, CPU, "<=", 1.3, C_EPOLL),
    *_beside([*cases.PING_PONG, *cases.CONNECTING], RATE, ">=", 2.0, STREAMS),
    *_beside(cases.PIPELINED, RATE, ">=", 15.0, STREAMS),
    Goal("parked", P50, "<=", 80, KEPT, (KEPT,), is_difference=True, unit=" us"),
    *_beside(["memcached"], RATE, ">=", 0.6, "memcached"),
    *_beside(["memcached"], RATE, ">=", 1.0, "uvloop"),
    *_beside(["redis"], RATE, ">=", 0.4, "redis"),
    *(Goal(case, MASTER, "<=", 1.0) for case in ("pp64", *cases.PIPELINED, "conn16")),
    Goal("pp64", MASTER, "<=", 3.0, ours=MANY),
]


def section(results: Results) -> str:
    """Return the goals that were missed, then those that were met; "" if none was measured."""
    outcomes: dict[bool, list[Goal]] = {False: [], True: []}
    for goal in GOALS:
        is_met = goal.is_met(results)
        if is_met is not None:
            outcomes[is_met].append(goal)
    missed, met = outcomes[False], outcomes[True]
    if not missed and not met:
        return ""
    parts = [f"{len(met)} of {len(met) + len(missed)} goals were met. {_READING}"]
    parts += _table("Not met:", missed, results) + _table("Met:", met, results)
    return "\n\n".join(parts)


_READING = """\
The median of the rounds counts, and in each round
the better figure of uvloop with one and with two processes. `>=` or `<=` before a measured ratio: the
load generator may have slowed linepool or the other server, so the real ratio may be larger or smaller;
`?`: both."""


def _table(title: str, goals: Sequence[Goal], results: Results) -> list[str]:
    rows = [goal.row(results) for goal in goals]
    return [title, harness.table(["case", "goal", "measured (min - max)"], rows)] if rows else []
