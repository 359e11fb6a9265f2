"""The first part of the page: what users ask first. Each sentence is computed from the figures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from statistics import median

from benchmarks import harness
from benchmarks.speed import cases
from benchmarks.speed.results import CPU, MASTER, MAX, MEMORY, P50, P99, RATE, Figure, Results
from benchmarks.speed.servers import (
    C_EPOLL,
    KEPT,
    MANY,
    ONE,
    OURS,
    PURE,
    STREAMS,
    UNGUARDED,
    UNTIMED,
    UVLOOPS,
)

_ALIKE = 0.05  # a smaller difference is within the noise
_US_PER_MS = 1000


def markdown(results: Results, plot: str) -> list[str]:
    """Return the sections for which something was measured.

    Args:
        results: What was measured.
        plot: The path of the plot relative to the page; "": none.
    """
    parts: list[str] = []
    for title, section in [
        ("How fast, beside the alternatives", _speed),
        ("What isolation costs", _isolation),
        ("When one request is slow", _blocked),
    ]:
        if found := section(results):
            parts += [f"## {title}", *found]
            if plot and section is _speed:
                parts.append(f"![requests/s and processor time of all servers]({plot})")
    return parts


def verdict(ratios: Sequence[float], other: str) -> str:
    """Return in how many loads more requests/s were answered, fewer, or as many."""
    more = sum(ratio > 1 + _ALIKE for ratio in ratios)
    fewer = sum(ratio < 1 - _ALIKE for ratio in ratios)
    return (
        f"more requests/s than {other} in {more} of {len(ratios)} loads, fewer in {fewer}, and as many"
        f" (within {100 * _ALIKE:g} %) in {len(ratios) - more - fewer}"
    )


def span(values: Sequence[float]) -> str:
    """Return the range of some ratios; one number if both ends read the same."""
    low, high = times(min(values)), times(max(values))
    return low if low == high else f"{low} to {high}"


def times(ratio: float) -> str:
    """Return a ratio as text, with one digit behind the point from 10 on, otherwise two."""
    return f"{ratio:.{1 if ratio >= 10 else 2}f}"


def _speed(results: Results) -> list[str]:
    loads = [
        name for name in (*cases.CLOSED, *cases.SESSION, *cases.WRITING) if results.has(name, OURS)
    ]
    parts: list[str] = []
    if sentences := [*_beside_uvloop(results, loads), *_beside_others(results, loads)]:
        parts.append("\n".join(sentences))
    if loads:
        parts.append(_loads(results, loads))
    if table := _servers(results):
        parts += ["All servers, requests/s (CPU µs per request):", table]
    parts += _list([*_rates(results), *_daemons(results), *_rpc(results)])
    return parts


def _beside_uvloop(results: Results, loads: Sequence[str]) -> list[str]:
    rates = _ratios(results, loads, UVLOOPS, RATE)
    if not rates:
        return []
    cpu = _ratios(results, loads, UVLOOPS, CPU)
    return [
        f"linepool with {cases.PROCESSES} workers answers {verdict(rates, 'uvloop')}:"
        f" {span(rates)} times as many, with {span(cpu)} times the CPU per request.",
        "uvloop is here the better of one and two processes with a hand-written `asyncio.Protocol` that"
        " does the same work,\nwithout any of linepool's safety.",
    ]


def _beside_others(results: Results, loads: Sequence[str]) -> list[str]:
    lines = []
    if rates := _ratios(results, loads, [STREAMS], RATE):
        lines.append(f"Beside asyncio streams it answers {span(rates)} times as many requests/s.")
    if rates := _ratios(results, loads, [PURE], RATE):
        lines.append(
            f"With its compiled core it answers {span(rates)} times as many requests/s as without."
        )
    return lines


def _ratios(
    results: Results, loads: Iterable[str], others: Sequence[str], figure: Figure
) -> list[float]:
    found = [results.ratio(name, OURS, others, figure) for name in loads]
    return [ratio for ratio in found if ratio is not None]


def _loads(results: Results, loads: Sequence[str]) -> str:
    """Return the table of linepool's figures and its ratios to the others."""
    columns = [
        ("req/s / uvloop", UVLOOPS, RATE),
        ("CPU / uvloop", UVLOOPS, CPU),
        ("req/s / streams", [STREAMS], RATE),
        ("CPU / C epoll", [C_EPOLL], CPU),
        ("req/s / pure", [PURE], RATE),
    ]
    columns = [one for one in columns if _ratios(results, loads, one[1], one[2])]
    rows = [
        [
            cases.BY_NAME[name].title,
            f"{results.middle(name, OURS, RATE):,.0f}",
            f"{results.middle(name, OURS, CPU):.2f}",
            *(
                _optional(results.ratio(name, OURS, others, figure))
                for _, others, figure in columns
            ),
        ]
        for name in loads
    ]
    headings = ["load", "linepool req/s", "CPU µs/request", *(title for title, _, _ in columns)]
    return harness.table(headings, rows)


def _optional(ratio: float | None) -> str:
    return "-" if ratio is None else times(ratio)


def _servers(results: Results) -> str:
    """Return the table of all servers in the cases that most of them take part in."""
    columns = results.overview()
    if not columns:
        return ""
    rows = [
        [
            server,
            *(
                _rate_and_cpu(results, name, server) if server in measured else "-"
                for name, measured in columns.items()
            ),
        ]
        for server in next(iter(columns.values()))
    ]
    return harness.table(["server", *(cases.BY_NAME[name].title for name in columns)], rows)


def _rate_and_cpu(results: Results, case: str, server: str) -> str:
    rate = _rate(results, case, server)
    return f"{rate} ({results.middle(case, server, CPU):.1f})"


def _rates(results: Results) -> list[str]:
    lines = []
    for name in cases.RATES:
        named = _each(results, name, [OURS, *UVLOOPS], _latency_and_cpu)
        if named:
            lines.append(f"{cases.BY_NAME[name].title}, p50 / p99 / CPU per request: {named}.")
    return lines


def _latency_and_cpu(results: Results, case: str, server: str) -> str:
    p50, p99 = (results.middle(case, server, figure) for figure in (P50, P99))
    return f"{p50:,.0f} / {p99:,.0f} / {results.middle(case, server, CPU):,.0f} µs"


def _daemons(results: Results) -> list[str]:
    lines = []
    for name in ("memcached", "redis"):
        if not results.has(name, OURS):
            continue
        others = [server for server in results.servers(name) if server != OURS]
        ratios = [
            f"{_optional(results.ratio(name, OURS, [other], RATE))} times {other}"
            for other in others
        ]
        rate = f"{results.middle(name, OURS, RATE):,.0f} requests/s"
        lines.append(f"{cases.BY_NAME[name].title}: {', '.join([rate, *ratios])}.")
    return lines


def _rpc(results: Results) -> list[str]:
    return [
        f"{cases.BY_NAME[name].title}, requests/s: {named}."
        for name in cases.RPC
        if (named := _each(results, name, results.servers(name), _rate))
    ]


def _rate(results: Results, case: str, server: str) -> str:
    return f"{results.middle(case, server, RATE):,.0f}"


def _each(
    results: Results,
    case: str,
    servers: Iterable[str],
    shown: Callable[[Results, str, str], str],
) -> str:
    """Return what is to be shown of each of some servers that was measured in a case."""
    measured = [server for server in servers if results.has(case, server)]
    return ", ".join(f"{server} {shown(results, case, server)}" for server in measured)


def _isolation(results: Results) -> list[str]:
    sentences = [
        *_unguarded(results),
        *_deadlines(results),
        *_master(results),
        *_workers(results),
        *_parking(results),
    ]
    servers = [OURS, PURE, UNTIMED, UNGUARDED, UVLOOPS[0]]
    servers = [server for server in servers if results.has("pp64", server)]
    if UNGUARDED not in servers and UNTIMED not in servers:
        return _list(sentences)
    rows = [
        [
            server,
            f"{results.middle('pp64', server, RATE):,.0f}",
            f"{results.middle('pp64', server, CPU):.2f}",
            f"{results.middle('pl128', server, CPU):.2f}" if results.has("pl128", server) else "-",
            f"{results.middle('pp64', server, MEMORY):.1f}",
        ]
        for server in servers
    ]
    headings = ["server", "ping-pong 64, req/s", "CPU µs", "pipelined 128, CPU µs", "MB"]
    return [*_list(sentences), harness.table(headings, rows)]


def _unguarded(results: Results) -> list[str]:
    """Compare with the same code in one process; that code is pure Python."""
    ours = PURE if results.has("pp64", PURE) else OURS
    ratio = results.ratio("pp64", ours, [UNGUARDED], CPU)
    if ratio is None:
        return []
    bare, guarded = (results.middle("pp64", server, CPU) for server in (UNGUARDED, ours))
    compiled = f"; compiled, {results.middle('pp64', OURS, CPU):.1f} µs" if ours == PURE else ""
    return [
        "The same handlers and protocol code (pure Python) in one process on uvloop, without master, forked"
        f" workers, board and deadlines, take {bare:.1f} µs of CPU per request at ping-pong on 64"
        f" connections; {ours} with all of them takes {guarded:.1f} µs, {times(ratio)} times as"
        f" much{compiled}."
    ]


def _deadlines(results: Results) -> list[str]:
    ratios = {
        cases.BY_NAME[name].title: ratio
        for name in ("pp64", "pl128")
        if (ratio := results.ratio(name, OURS, [UNTIMED], CPU)) is not None
    }
    if not ratios:
        return []
    named = ", ".join(f"{times(ratio)} ({title})" for title, ratio in ratios.items())
    return [f"Deadlines: CPU per request with `request_timeout`, divided by that without: {named}."]


def _master(results: Results) -> list[str]:
    shares = [
        f"{results.middle('pp64', server, MASTER):.1f} % of a processor with {workers} workers"
        for server, workers in ((OURS, cases.PROCESSES), (MANY, 64))
        if results.has("pp64", server)
    ]
    return [f"The master at full load: {', '.join(shares)}."] if shares else []


def _workers(results: Results) -> list[str]:
    lines = []
    for name in cases.RATES:
        ratio = results.ratio(name, MANY, [ONE], CPU)
        if ratio is not None:
            one, many = (results.middle(name, server, MEMORY) for server in (ONE, MANY))
            lines.append(
                f"64 workers instead of one at {cases.BY_NAME[name].title}: {times(ratio)} times the CPU per"
                f" request, {many:.0f} MB instead of {one:.0f}."
            )
    return lines


def _parking(results: Results) -> list[str]:
    differences = results.differences("parked", OURS, [KEPT], P50)
    if not differences:
        return []
    added = median(differences)
    return [
        "A connection that is idle for longer than `park_after` moves to the parker. Its next request takes"
        f" {abs(added):.0f} µs {'more' if added > 0 else 'less'} at the median than that of one never"
        " parked."
    ]


def _blocked(results: Results) -> list[str]:
    servers = results.servers("blocked")
    if OURS not in servers:
        return []
    case = cases.BY_NAME["blocked"]
    named = _each(results, case.name, [OURS, *(one for one in servers if one != OURS)], _waits)
    text = (
        f"{case.connections} connections send {case.rate:,} requests/s. One more client sends a request"
        f" whose handler sleeps for {case.blocked_ms / _US_PER_MS:g} s. The other requests that are due in"
        f" this second wait, 99 % of them, at most: {named}."
    )
    rows = [
        [server, *(_ms(results.middle(case.name, server, one)) for one in (P50, P99, MAX))]
        for server in servers
    ]
    headings = ["server", "p50 of the others, ms", "p99, ms", "maximum, ms"]
    return [text, harness.table(headings, rows)]


def _waits(results: Results, case: str, server: str) -> str:
    return f"{_ms(results.middle(case, server, P99))} ms"


def _ms(us: float) -> str:
    ms = us / _US_PER_MS
    return f"{ms:,.{0 if ms >= 100 else 1 if ms >= 10 else 2}f}"


def _list(lines: Sequence[str]) -> list[str]:
    """Return a Markdown list as one part; none for no lines."""
    return ["\n".join(f"- {line}" for line in lines)] if lines else []
