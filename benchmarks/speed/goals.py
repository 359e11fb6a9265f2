"""The goals for linepool, and whether a run met them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median

from attrs import frozen

from benchmarks import harness
from benchmarks.speed.measure import Outcome
from benchmarks.speed.report import Results, Run
from benchmarks.speed.servers import CASES, OURS, REFERENCES, STREAMS, UVLOOP, Case

_FIGURES: dict[str, Callable[[Outcome], float]] = {
    "requests/s": lambda outcome: outcome.rps,
    "p99": lambda outcome: outcome.p99,
    "CPU per request": lambda outcome: outcome.cpu_us,
    "CPU of the master, % of one processor,": lambda outcome: 100 * outcome.master,
}
_RATE, _P99, _CPU, _MASTER = _FIGURES
# How a ratio is bounded, if the load generator was the limit of (linepool, the other server).
_BOUNDS = {(False, False): "", (True, False): ">= ", (False, True): "<= ", (True, True): "? "}


@frozen
class Goal:
    """A limit for a figure of linepool in some cases, or for its ratio to that of another server.

    Attributes:
        cases: Their names.
        other: The other server; "": none.
        sign: >= or <=; "": no limit, only reported.
    """

    cases: Sequence[str]
    figure: str
    other: str
    sign: str = ""
    limit: float = 0.0

    def __str__(self) -> str:
        if not self.sign:
            return f"{self.figure} / {self.other}"
        return f"{self.figure} {self.sign} {self.limit:g}" + f" x {self.other}" * bool(self.other)

    def row(self, results: Results, case: Case) -> list[str]:
        """Return the table row of one of its cases."""
        figure = _FIGURES[self.figure]
        if self.other:
            values = results.ratios(case, OURS, self.other, figure)
        else:
            values = [figure(outcome) for outcome in results.of(case, OURS).values()]
        if not values:
            return [case.title, str(self), "-", "not measured"]
        bound = ""
        if self.figure == _RATE:
            bound = _BOUNDS[results.is_limited(case, OURS), results.is_limited(case, self.other)]
        measured = f"{bound}{median(values):.3f} ({min(values):.3f} - {max(values):.3f})"
        return [case.title, str(self), measured, self._met(median(values))]

    def _met(self, value: float) -> str:
        if not self.sign:
            return "no goal"
        is_met = value >= self.limit if self.sign == ">=" else value <= self.limit
        return "yes" if is_met else "no"


_PING_PONG = ["pp1", "pp2", "pp16", "pp64"]
_PIPELINED = ["pl16", "pl128"]
_CONNECTING = ["conn2", "conn16"]

GOALS = [
    Goal(["pp64"], _RATE, UVLOOP, ">=", 1.1),
    Goal(["pp64"], _P99, UVLOOP, "<=", 1.0),
    Goal(["pp1", "pp2", "pp16"], _RATE, UVLOOP, ">=", 1.0),
    Goal(["pl16"], _RATE, UVLOOP, ">=", 1.1),
    Goal(["pl128"], _RATE, UVLOOP, ">=", 0.8),
    Goal(_CONNECTING, _RATE, UVLOOP, ">=", 1.0),
    Goal([*_PING_PONG, *_CONNECTING], _RATE, STREAMS, ">=", 1.5),
    Goal(_PIPELINED, _RATE, STREAMS, ">=", 5.0),
    Goal(_PING_PONG, _CPU, REFERENCES["lines"], "<=", 1.25),
    Goal(["memcached"], _RATE, REFERENCES["memcached"], ">=", 0.5),
    Goal(["memcached"], _RATE, "uvloop", ">=", 3.0),
    Goal(["memcached"], _RATE, "asyncio streams", ">=", 3.0),
    Goal(["redis"], _RATE, REFERENCES["redis"]),
    Goal(["pp64", *_PIPELINED, "conn16"], _MASTER, "", "<=", 1.0),
]


def table(runs: Sequence[Run]) -> str:
    """Return the table of all goals in all their cases."""
    results = Results(runs)
    cases = {case.name: case for case in CASES}
    rows = [goal.row(results, cases[name]) for goal in GOALS for name in goal.cases]
    return harness.table(["case", "goal", "measured (min - max)", "met"], rows)
