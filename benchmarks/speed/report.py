"""Turn runs into a Markdown page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median

from benchmarks import harness
from benchmarks.speed import goals, summary
from benchmarks.speed.cases import CASES, PROCESSES, Case
from benchmarks.speed.results import (
    CPU,
    FOREIGN,
    GENERATOR,
    GENERATOR_LIMIT,
    MEMORY,
    P50,
    P99,
    RATE,
    Results,
    compared,
)
from benchmarks.speed.servers import C_EPOLL, OURS, Contender, reference


def markdown(
    results: Results,
    plot: str,
    contenders: Sequence[Contender],
    absent: Sequence[str],
    conditions: Sequence[str],
) -> str:
    """Return the page.

    Args:
        results: What was measured.
        plot: The path of the plot relative to the page; "": none.
        contenders: The servers that were measured.
        absent: The servers that were left out, and why.
        conditions: How they were measured, line by line.
    """
    parts = [_HEAD, _list(conditions), *summary.markdown(results, plot)]
    parts += ["## All figures", _NOTES]
    for case in CASES:
        if any(run.case == case.name for run in results.runs):
            parts += [f"### {case.title}", _table(results, case), *_faults(results, case)]
    if text := goals.section(results):
        parts += ["## Goals", text]
    parts += ["## Servers", _SERVERS, _list(_described(contenders))]
    if absent:
        parts += ["Left out:", _list(absent)]
    return "\n\n".join(parts) + "\n"


_HEAD = """\
<!-- Written by ./dev bench --report, plot included: do not edit. -->

# Benchmarks

Requests/s, latency and processor time of linepool and of other servers. All figures are from one
run on one machine, where the load generator shares the processors with the server. On other machines
the figures differ; the ratios differ less."""

_NOTES = f"""\
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

- CPU: of all processes and threads of the server per request, from the kernel's clock of each process,
  ended children included. On a machine with other work it is the steadiest figure: compare this one first.
- ratios: of requests/s, so more is better; at a fixed rate, of p99, so less is better. Each round
  measures all servers of a case one after the other, in random order, and a ratio is the median of the
  rounds' ratios. `{C_EPOLL}` costs about what the kernel's part of the work costs.
- `>=`: the load generator used more than {GENERATOR_LIMIT:g} of a processor, so it may be the
  bottleneck; compare the CPU.
- MB: all processes of the server under load (PSS).
- load, others: processors used by the load generator and by the rest of the machine.
- With one or two connections, where the scheduler places the processes matters more than the server."""

_SERVERS = f"""\
Each server is written and configured as its own users would do it, has {PROCESSES} processes unless
noted otherwise, and is restarted for each run. Servers that are not installed are left out and named."""


def _list(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _described(contenders: Sequence[Contender]) -> list[str]:
    lines = []
    for one in contenders:
        version = one.version()
        lines.append(f"{one.name}: {one.settings}" + f"; {version}" * bool(version))
    return list(dict.fromkeys(lines))


def _table(results: Results, case: Case) -> str:
    figure = compared(case.name)
    second = RATE if figure == P99 else P99
    short = {RATE: "req/s", P99: "p99"}[figure]
    units = {RATE: "requests/s", P99: "p99, µs"}
    others = [OURS, *filter(None, [reference(case.name)])]
    headings = ["server", units[figure], "min - max"]
    headings += [f"{short} / {other}" for other in others]
    headings += ["p50, µs", units[second], "CPU µs/request", "MB", "load", "others"]
    rows = [_row(results, case.name, server, others) for server in results.servers(case.name)]
    return harness.table(headings, rows)


def _row(results: Results, case: str, server: str, others: Sequence[str]) -> list[str]:
    figure = compared(case)
    values = [figure.of(outcome) for outcome in results.of(case, server).values()]
    second = RATE if figure == P99 else P99
    return [
        server,
        (">= " if results.is_limited(case, server) else "") + f"{median(values):,.0f}",
        f"{min(values):,.0f} - {max(values):,.0f}",
        *(_times(results.ratio(case, server, [other], figure)) for other in others),
        f"{results.middle(case, server, P50):,.0f}",
        f"{results.middle(case, server, second):,.0f}",
        f"{results.middle(case, server, CPU):.2f}",
        f"{results.middle(case, server, MEMORY):.1f}",
        f"{results.middle(case, server, GENERATOR):.2f}",
        f"{max(0.0, results.middle(case, server, FOREIGN)):.2f}",
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
