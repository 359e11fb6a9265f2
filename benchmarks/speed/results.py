"""What the runs measured, and ratios between the servers of a round."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median

from attrs import asdict, frozen

from benchmarks.speed.cases import BY_NAME, COMPARED
from benchmarks.speed.measure import Outcome
from benchmarks.speed.servers import VARIANTS

GENERATOR_LIMIT = 0.9  # processors; a load generator above it may be the bottleneck
_DISTURBED = 0.25  # processors used by other processes


@frozen
class Figure:
    """One of the figures of a run.

    Attributes:
        of: Returns it.
        most: Whether more is better.
    """

    name: str
    of: Callable[[Outcome], float]
    most: bool = False

    def better(self, values: Sequence[float]) -> float:
        """Return the best of some values."""
        return max(values) if self.most else min(values)


RATE = Figure("requests/s", lambda outcome: outcome.rps, most=True)
CPU = Figure("CPU per request", lambda outcome: outcome.cpu_us)
P50 = Figure("p50", lambda outcome: outcome.p50)
P99 = Figure("p99", lambda outcome: outcome.p99)
MAX = Figure("maximum", lambda outcome: outcome.max)
MASTER = Figure("CPU of the master, % of a processor,", lambda outcome: 100 * outcome.master)
MEMORY = Figure("MB", lambda outcome: outcome.memory_mb)
GENERATOR = Figure("processors of the load generator", lambda outcome: outcome.generator)
FOREIGN = Figure("processors of others", lambda outcome: outcome.foreign)


@frozen
class Run:
    """One server under one load, once.

    Attributes:
        tries: How often it was measured, because of disturbances; this is the least disturbed run.
        outcome: What was measured; None if that failed.
        fault: Why it failed.
    """

    round: int
    case: str
    server: str
    outcome: Outcome | None = None
    fault: str = ""
    tries: int = 1

    @property
    def is_disturbed(self) -> bool:
        """Whether other processes have used too much CPU."""
        return self.outcome is not None and self.outcome.foreign > _DISTURBED

    @property
    def problem(self) -> str:
        """What went wrong; "": nothing."""
        if self.outcome and self.outcome.errors:
            return f"{self.outcome.errors} requests or connections were lost"
        return self.fault

    def __str__(self) -> str:
        one = self.outcome
        shown = (
            f"{one.rps:,.0f}/s, {one.cpu_us:.2f} us CPU, {one.foreign:.2f} others" if one else ""
        )
        return f"{self.case} {self.server}: " + "; ".join(filter(None, (shown, self.problem)))

    def as_line(self) -> dict[str, object]:
        """Return it as a flat dict, for a line of JSON."""
        line = asdict(self)
        return line | (line.pop("outcome") or {})


@frozen
class Results:
    """All runs; cases and servers are given by their names."""

    runs: Sequence[Run]

    def of(self, case: str, server: str) -> dict[int, Outcome]:
        """Return the outcomes of a server in a case, by round."""
        return {
            run.round: run.outcome
            for run in self.runs
            if (run.case, run.server) == (case, server) and run.outcome
        }

    def has(self, case: str, *servers: str) -> bool:
        """Whether all these servers were measured in a case."""
        return all(self.of(case, server) for server in servers)

    def middle(self, case: str, server: str, figure: Figure) -> float:
        """Return the median of a figure over the rounds. Pre-condition: the server was measured."""
        return median(map(figure.of, self.of(case, server).values()))

    def servers(self, case: str) -> list[str]:
        """Return the servers of a case, best first."""
        figure = compared(case)
        names = {run.server for run in self.runs if run.case == case and run.outcome}
        return sorted(names, key=lambda name: self.middle(case, name, figure), reverse=figure.most)

    def overview(self) -> dict[str, list[str]]:
        """Return the servers of each case that most of them take part in, best first."""
        found = {case: self.servers(case) for case in COMPARED}
        return {
            case: [server for server in servers if server not in VARIANTS]
            for case, servers in found.items()
            if servers
        }

    def best(self, case: str, servers: Sequence[str], figure: Figure) -> dict[int, float]:
        """Return for each round the best figure that one of some servers reached."""
        found: dict[int, list[float]] = {}
        for server in servers:
            for number, outcome in self.of(case, server).items():
                found.setdefault(number, []).append(figure.of(outcome))
        return {number: figure.better(values) for number, values in found.items()}

    def ratios(self, case: str, server: str, others: Sequence[str], figure: Figure) -> list[float]:
        """Return for each round the figure of a server, divided by the best of the others."""
        theirs = self.best(case, others, figure)
        return [
            figure.of(outcome) / theirs[number]
            for number, outcome in self.of(case, server).items()
            if theirs.get(number)
        ]

    def ratio(self, case: str, server: str, others: Sequence[str], figure: Figure) -> float | None:
        """Return the median of these ratios; None if there are none."""
        ratios = self.ratios(case, server, others, figure)
        return median(ratios) if ratios else None

    def differences(
        self, case: str, server: str, others: Sequence[str], figure: Figure
    ) -> list[float]:
        """Return for each round the figure of a server, less the best of the others."""
        theirs = self.best(case, others, figure)
        own = self.of(case, server).items()
        return [figure.of(outcome) - theirs[number] for number, outcome in own if number in theirs]

    def is_limited(self, case: str, server: str) -> bool:
        """Whether the load generator may have been the bottleneck."""
        if BY_NAME[case].mode == "open" or not self.has(case, server):
            return False
        return self.middle(case, server, GENERATOR) > GENERATOR_LIMIT


def compared(case: str) -> Figure:
    """Return the figure that a case compares: requests/s; at a fixed rate, p99."""
    return P99 if BY_NAME[case].mode == "open" else RATE
