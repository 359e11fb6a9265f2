"""What speed.py makes of its runs: a page in Markdown and two plots."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median

import harness
from attrs import asdict, frozen
from speed_load import Outcome
from speed_servers import (
    CASES,
    OURS,
    PROCESSES,
    REFERENCES,
    STREAMS,
    UVLOOP,
    Case,
    Contender,
)

_AT_ITS_LIMIT = 0.9  # share of a processor; a generator above it may be what is measured
_DISTURBED = 0.25  # processors that others have used
_COLUMNS = 3  # of panels
_COLOURS = {"ours": "tab:blue", "reference": "tab:orange", "other": "tab:gray"}


@frozen
class Run:
    """One server under one load, once.

    Attributes:
        tries: How often it was measured, until others disturbed little; this is the calmest.
        outcome: What was measured, or None: it could not be.
        fault: Why not.
    """

    round: int
    case: str
    server: str
    outcome: Outcome | None = None
    fault: str = ""
    tries: int = 1

    @property
    def is_disturbed(self) -> bool:
        """Whether others have used so much that it should be measured again."""
        return self.outcome is not None and self.outcome.foreign > _DISTURBED

    @property
    def told(self) -> str:
        """What went wrong, or ""."""
        if self.outcome and self.outcome.errors:
            return f"{self.outcome.errors} requests or connections were lost"
        return self.fault

    def __str__(self) -> str:
        one = self.outcome
        told = f"{one.rps:,.0f}/s, {one.cpu_us:.2f} us CPU, {one.foreign:.2f} others" if one else ""
        return f"{self.case} {self.server}: " + "; ".join(filter(None, (told, self.told)))

    def as_line(self) -> dict[str, object]:
        """Return it flat, for a line of JSON."""
        line = asdict(self)
        return line | (line.pop("outcome") or {})


@frozen
class Results:
    """All runs."""

    runs: Sequence[Run]

    def of(self, case: Case, server: str) -> dict[int, Outcome]:
        """Return what a server did in a case, by rounds."""
        return {
            run.round: run.outcome
            for run in self.runs
            if (run.case, run.server) == (case.name, server) and run.outcome
        }

    def middle(self, case: Case, server: str, figure: Callable[[Outcome], float]) -> float:
        """Return the median over the rounds."""
        return median(map(figure, self.of(case, server).values()))

    def servers(self, case: Case) -> list[str]:
        """Return the servers of a case, the best first."""
        names = {run.server for run in self.runs if run.case == case.name and run.outcome}
        is_better_more = case.mode != "open"
        return sorted(
            names, key=lambda name: self.middle(case, name, _figure(case)), reverse=is_better_more
        )

    def ratios(
        self, case: Case, server: str, other: str, figure: Callable[[Outcome], float]
    ) -> list[float]:
        """Return how many times the other's figure, round by round."""
        theirs = self.of(case, other)
        return [
            figure(outcome) / figure(theirs[number])
            for number, outcome in self.of(case, server).items()
            if number in theirs and figure(theirs[number])
        ]

    def ratio(self, case: Case, server: str, other: str) -> float | None:
        """Return the median of these ratios, of what the servers of a case are compared by."""
        ratios = self.ratios(case, server, other, _figure(case))
        return median(ratios) if ratios else None

    def is_limited(self, case: Case, server: str) -> bool:
        """Whether the load generator may have been the limit."""
        load = self.middle(case, server, lambda outcome: outcome.generator)
        return load > _AT_ITS_LIMIT and case.mode != "open"


def _figure(case: Case) -> Callable[[Outcome], float]:
    """What servers are compared by: at a fixed rate, not by how much they answer."""
    return (lambda outcome: outcome.p99) if case.mode == "open" else (lambda outcome: outcome.rps)


def markdown(
    runs: Sequence[Run],
    goals: str,
    plots: Mapping[str, str],
    contenders: Sequence[Contender],
    absent: Sequence[str],
    conditions: Sequence[str],
) -> str:
    """Return the page.

    Args:
        runs: All of them.
        goals: The table of the goals.
        plots: Their titles, and where they are, as seen from the page.
        contenders: Those that have been measured.
        absent: The servers that have been left out, and why.
        conditions: How it was measured, line by line.
    """
    results = Results(runs)
    parts = [_HEAD, _list(conditions), _NOTES, "## Goals", _GOALS, goals]
    if plots:
        parts += ["## Plots", *(f"![{title}]({path})" for title, path in plots.items())]
    for case in CASES:
        if any(run.case == case.name for run in runs):
            parts += [f"## {case.title}", _table(results, case), *_faults(results, case)]
    parts += ["## Servers", _SERVERS, _list(_described(contenders))]
    if absent:
        parts += ["Left out:", _list(absent)]
    return "\n\n".join(parts) + "\n"


_HEAD = """\
<!-- Written by ./dev bench speed --report FILE, plots included: do not edit. -->

# Benchmarks

linepool beside other servers: how many requests they answer, after how long, and for how much
processor time. Every figure is of one run on one machine, where the load generator shares the
processors with the server. Elsewhere the figures are others; the ratios change less."""

_NOTES = f"""\
## How to read this

What is asked:

- ping-pong: each connection sends its next request when it has the reply to the last (closed loop).
- pipelined: each connection has so many requests on their way at once. A slower server finds larger
  batches, which flatters it.
- a connection per request: connect, ask, read the reply, close.
- a fixed rate: requests are sent when they are due, whether there are replies or not (open loop). A
  latency counts from the moment the request was due: who stalls is charged with all that fell due
  meanwhile (no coordinated omission).

Every reply is compared with the one that is due, of HTTP its length and beginning; a wrong one makes
the run a failure. Only redis-benchmark, which asks in the Redis case, does not compare.

What the columns mean - medians over the rounds; `min - max` are those of the first column:

- CPU: of all processes of the server for one request, ended children included. On a machine with
  other work it is the steadiest figure: compare this one first.
- ratios: of requests/s, so more is better; with a fixed rate, of p99, so less is better. All servers of
  a case are measured one after the other in each round, and a ratio is the median of the rounds'
  ratios. `C epoll` is about what the kernel's part of the work costs.
- `>=`: the load generator used more than {_AT_ITS_LIMIT:g} of a processor, so it may be what was
  measured; compare the CPU.
- MB: all processes of the server under load (PSS).
- load, others: processors that the load generator and the rest of the machine used.
- With one or two connections, where the scheduler puts the processes decides more than the server."""

_GOALS = f"""\
What linepool is meant to reach, most of it as ratios to `{UVLOOP}` (a Protocol, {PROCESSES}
processes), `{STREAMS}` (asyncio's streams, as its documentation shows them) and servers in C.
What counts is the median of the rounds. `>=` or `<=` before what was measured: the load generator may
have held back linepool or the other, so the ratio may be larger or smaller than that; `?`: both."""

_SERVERS = f"""\
Each is written and configured as its own users would do it, has {PROCESSES} processes unless told
otherwise, and is started anew for each run. What is not installed is left out and named."""


def _list(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _described(contenders: Sequence[Contender]) -> list[str]:
    lines = []
    for one in contenders:
        version = one.version()
        lines.append(f"{one.name} ({one.kind}): {one.settings}" + f"; {version}" * bool(version))
    return lines


def _table(results: Results, case: Case) -> str:
    compared = "p99" if case.mode == "open" else "req/s"
    others = [OURS, *([REFERENCES[case.kind]] if case.kind in REFERENCES else [])]
    first = "p99, us" if case.mode == "open" else "requests/s"
    headings = ["server", first, "min - max"]
    headings += [f"{compared} / {_whose(other, case)}" for other in others]
    headings += ["p50, us", "requests/s" if case.mode == "open" else "p99, us"]
    headings += ["CPU us/request", "MB", "load", "others"]
    rows = [_row(results, case, server, others) for server in results.servers(case)]
    return harness.table(headings, rows)


def _whose(other: str, case: Case) -> str:
    """Name a server in a heading, where another one may bear nearly the same name."""
    return other if other != OURS or case.kind != "rpc" else f"{OURS} lines"


def _row(results: Results, case: Case, server: str, others: Sequence[str]) -> list[str]:
    def middle(figure: Callable[[Outcome], float]) -> float:
        return results.middle(case, server, figure)

    figures = [_figure(case)(outcome) for outcome in results.of(case, server).values()]
    return [
        _whose(server, case),
        (">= " if results.is_limited(case, server) else "") + f"{median(figures):,.0f}",
        f"{min(figures):,.0f} - {max(figures):,.0f}",
        *(_times(results.ratio(case, server, other)) for other in others),
        f"{middle(lambda outcome: outcome.p50):,.0f}",
        f"{middle(lambda outcome: outcome.rps if case.mode == 'open' else outcome.p99):,.0f}",
        f"{middle(lambda outcome: outcome.cpu_us):.2f}",
        f"{middle(lambda outcome: outcome.memory_mb):.1f}",
        f"{middle(lambda outcome: outcome.generator):.2f}",
        f"{max(0.0, middle(lambda outcome: outcome.foreign)):.2f}",
    ]


def _times(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.2f}"


def _faults(results: Results, case: Case) -> list[str]:
    """Tell which runs went wrong, and which were disturbed."""
    runs = [run for run in results.runs if run.case == case.name]
    lines = [f"{run.server}, round {run.round + 1}: {run.told}" for run in runs if run.told]
    disturbed = sum(run.is_disturbed for run in runs)
    if disturbed:
        lines.append(f"others disturbed {disturbed} of {len(runs)} runs")
    return [_list(lines)] if lines else []


def plot(runs: Sequence[Run], directory: Path) -> dict[str, Path]:
    """Draw the ratios and the processor time of each case; return the files by their titles."""
    results = Results(runs)
    cases = [case for case in CASES if results.servers(case)]

    def ratios(case: Case) -> dict[str, float]:
        found = {one: results.ratio(case, one, OURS) for one in results.servers(case)}
        return {server: ratio for server, ratio in found.items() if ratio is not None}

    def processor(case: Case) -> dict[str, float]:
        servers = results.servers(case)
        return {one: results.middle(case, one, lambda it: it.cpu_us) for one in servers}

    drawn = {}
    for name, title, values in [
        ("ratios", "requests/s divided by linepool's; at a fixed rate, p99 by linepool's", ratios),
        ("cpu", "processor time of the server for each request, us", processor),
    ]:
        panels = [(case, bars) for case in cases if (bars := values(case))]
        if panels:
            drawn[title] = directory / f"{name}.svg"
            _draw(drawn[title], title, panels)
    return drawn


def _draw(path: Path, title: str, cases: Sequence[tuple[Case, dict[str, float]]]) -> None:
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": path.name}  # small; the same each time
    from matplotlib import pyplot as plt

    rows = -(-len(cases) // _COLUMNS)
    figure, panels = plt.subplots(
        rows, _COLUMNS, figsize=(16, 3.4 * rows), squeeze=False, layout="constrained"
    )
    figure.suptitle(title)
    for panel in panels.flat:
        panel.set_axis_off()
    for panel, (case, bars) in zip(panels.flat, cases, strict=False):
        panel.set_axis_on()
        drawn = panel.barh(list(bars), list(bars.values()), color=[_colour(n, case) for n in bars])
        panel.bar_label(drawn, fmt="%.2f", padding=2, fontsize=8)
        panel.margins(x=0.15)
        panel.invert_yaxis()
        panel.set_title(case.title, fontsize=10)
        panel.tick_params(labelsize=8)
        panel.set_xticks([])  # the numbers stand at the bars
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _colour(server: str, case: Case) -> str:
    if server.startswith(OURS):
        return _COLOURS["ours"]
    return _COLOURS["reference" if server == REFERENCES.get(case.kind) else "other"]
