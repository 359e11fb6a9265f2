"""Turn runs into a Markdown page and two plots."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median

from attrs import asdict, frozen

from benchmarks import harness
from benchmarks.speed.measure import Outcome
from benchmarks.speed.servers import (
    CASES,
    OURS,
    PROCESSES,
    REFERENCES,
    STREAMS,
    UVLOOP,
    Case,
    Contender,
)

_GENERATOR_LIMIT = 0.9  # processors; a load generator above it may be the bottleneck
_DISTURBED = 0.25  # processors used by other processes
_COLUMNS = 3  # of panels
_COLOURS = {"ours": "tab:blue", "reference": "tab:orange", "other": "tab:gray"}


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
    """All runs."""

    runs: Sequence[Run]

    def of(self, case: Case, server: str) -> dict[int, Outcome]:
        """Return the outcomes of a server in a case, by round."""
        return {
            run.round: run.outcome
            for run in self.runs
            if (run.case, run.server) == (case.name, server) and run.outcome
        }

    def middle(self, case: Case, server: str, figure: Callable[[Outcome], float]) -> float:
        """Return the median of a figure over the rounds."""
        return median(map(figure, self.of(case, server).values()))

    def servers(self, case: Case) -> list[str]:
        """Return the servers of a case, best first."""
        names = {run.server for run in self.runs if run.case == case.name and run.outcome}
        more_is_better = case.mode != "open"
        return sorted(
            names, key=lambda name: self.middle(case, name, _figure(case)), reverse=more_is_better
        )

    def ratios(
        self, case: Case, server: str, other: str, figure: Callable[[Outcome], float]
    ) -> list[float]:
        """Return the figure of a server divided by the other's, for each round."""
        theirs = self.of(case, other)
        return [
            figure(outcome) / figure(theirs[number])
            for number, outcome in self.of(case, server).items()
            if number in theirs and figure(theirs[number])
        ]

    def ratio(self, case: Case, server: str, other: str) -> float | None:
        """Return the median of these ratios, of the figure that the case compares."""
        ratios = self.ratios(case, server, other, _figure(case))
        return median(ratios) if ratios else None

    def is_limited(self, case: Case, server: str) -> bool:
        """Whether the load generator may have been the bottleneck."""
        load = self.middle(case, server, lambda outcome: outcome.generator)
        return load > _GENERATOR_LIMIT and case.mode != "open"


def _figure(case: Case) -> Callable[[Outcome], float]:
    """Return the figure that a case compares: requests/s; at a fixed rate, p99."""
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
        runs: All runs.
        goals: The table of goals.
        plots: Paths of the plots relative to the page, by title.
        contenders: The servers that were measured.
        absent: The servers that were left out, and why.
        conditions: How they were measured, line by line.
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

Requests/s, latency and processor time of linepool and of other servers. All figures are from one
run on one machine, where the load generator shares the processors with the server. On other machines
the figures differ; the ratios differ less."""

_NOTES = f"""\
## How to read this

The loads:

- ping-pong: each connection sends its next request after the reply to the last one (closed loop).
- pipelined: each connection has a number of requests in flight. A slower server reads larger
  batches, which flatters it.
- a connection per request: connect, send the request, read the reply, close.
- a fixed rate: requests are sent when they are due, with or without replies (open loop). Latency
  counts from the moment a request was due, so a server that stalls is charged for all requests that
  fell due meanwhile (no coordinated omission).

Every reply is compared with the expected one (for HTTP: its length and beginning); a wrong reply fails
the run. Only redis-benchmark, which generates the load of the Redis case, does not compare.

The columns are medians over the rounds; `min - max` is the range of the first column:

- CPU: of all processes of the server per request, ended children included. On a machine with other
  work it is the steadiest figure: compare this one first.
- ratios: of requests/s, so more is better; at a fixed rate, of p99, so less is better. Each round
  measures all servers of a case one after the other, and a ratio is the median of the rounds' ratios.
  `C epoll` costs about what the kernel's part of the work costs.
- `>=`: the load generator used more than {_GENERATOR_LIMIT:g} of a processor, so it may be the
  bottleneck; compare the CPU.
- MB: all processes of the server under load (PSS).
- load, others: processors used by the load generator and by the rest of the machine.
- With one or two connections, where the scheduler places the processes matters more than the server."""

_GOALS = f"""\
The goals for linepool, most of them as ratios to `{UVLOOP}` (a Protocol, {PROCESSES} processes),
`{STREAMS}` (asyncio streams, as its documentation shows them) and servers in C. The median
of the rounds counts. `>=` or `<=` before a measured ratio: the load generator may have slowed linepool
or the other server, so the real ratio may be larger or smaller; `?`: both."""

_SERVERS = f"""\
Each server is written and configured as its own users would do it, has {PROCESSES} processes unless
noted otherwise, and is restarted for each run. Servers that are not installed are left out and named."""


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
    headings += [f"{compared} / {_label(other, case)}" for other in others]
    headings += ["p50, us", "requests/s" if case.mode == "open" else "p99, us"]
    headings += ["CPU us/request", "MB", "load", "others"]
    rows = [_row(results, case, server, others) for server in results.servers(case)]
    return harness.table(headings, rows)


def _label(other: str, case: Case) -> str:
    """Return the name of a server for a heading; some cases have two of linepool."""
    return other if other != OURS or case.kind != "rpc" else f"{OURS} lines"


def _row(results: Results, case: Case, server: str, others: Sequence[str]) -> list[str]:
    def middle(figure: Callable[[Outcome], float]) -> float:
        return results.middle(case, server, figure)

    figures = [_figure(case)(outcome) for outcome in results.of(case, server).values()]
    return [
        _label(server, case),
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
    """Return the runs that failed, and how many were disturbed."""
    runs = [run for run in results.runs if run.case == case.name]
    lines = [f"{run.server}, round {run.round + 1}: {run.problem}" for run in runs if run.problem]
    disturbed = sum(run.is_disturbed for run in runs)
    if disturbed:
        lines.append(f"other processes disturbed {disturbed} of {len(runs)} runs")
    return [_list(lines)] if lines else []


def plot(runs: Sequence[Run], directory: Path) -> dict[str, Path]:
    """Draw the ratios and the processor time of each case; return the files by title."""
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
    mpl.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": path.name}  # small and reproducible
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
        panel.set_xticks([])  # the bars are labelled
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _colour(server: str, case: Case) -> str:
    if server.startswith(OURS):
        return _COLOURS["ours"]
    return _COLOURS["reference" if server == REFERENCES.get(case.kind) else "other"]
