"""Measure requests/s, latency and processor time of linepool and of other servers.

Sums over a line protocol, from one to many connections, pipelined, with a connection per request, at
fixed rates, and while another request is slow: linepool, uvloop, asyncio, a reference in C, and others.
The same with a session and middleware. The same sum over HTTP: gunicorn and uWSGI. memcached and Redis,
beside the examples that speak their protocols. linepool runs with its compiled core, if there is one, and
without.

Each round starts and measures the servers of a case one after the other, in random order. The report
is printed and written to a file, the runs to another as JSON lines, and a plot to a directory beside
the report and named like it.
"""

from __future__ import annotations

import argparse
import json
import random
import shlex
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs
from attrs import frozen

from benchmarks import harness, load, meter
from benchmarks.speed import cases, measure, plots, report, starting
from benchmarks.speed.cases import CASES, Case
from benchmarks.speed.results import Results, Run
from benchmarks.speed.servers import Contender, all_contenders
from linepool import core

_PAGE = harness.HERE.parent / "docs" / "benchmarks.md"
_MAX_SECONDS = 1.0  # per run, without --seconds
_MIN_SECONDS = 0.3
_OVERHEAD = 0.8  # seconds, about, to start a server, warm it up and stop it
_FOR_REPEATING = 0.1  # share of the time, for runs that other processes have disturbed
_MINUTES, _ROUNDS = 22.0, 5
_SHORT_MINUTES, _SHORT_ROUNDS = 4.0, 3
_MAX_TRIES = 2


@frozen
class Plan:
    """What to measure, and for how long; times in seconds."""

    pairs: Sequence[tuple[Case, Contender]]
    rounds: int
    seconds: float
    limit: float

    @property
    def total(self) -> int:
        """The number of runs."""
        return self.rounds * len(self.pairs)

    def needed(self, runs: int) -> float:
        """Return how long a number of runs takes, about."""
        return runs * (self.seconds + _OVERHEAD)

    def runs(self) -> Iterator[tuple[int, Case, Contender]]:
        """Yield round by round and case by case, the servers of a case in random order."""
        for number in range(self.rounds):
            order = random.Random(number)  # the same in every execution
            for case in CASES:
                contenders = [contender for one, contender in self.pairs if one == case]
                for contender in order.sample(contenders, len(contenders)):
                    yield number, case, contender


def _run_once(number: int, case: Case, contender: Contender, seconds: float) -> Run:
    """Start a server, measure it, and stop it; the result names a failure."""
    try:
        with starting.serving(contender, case, seconds) as job:
            return Run(number, case.name, contender.name, measure.measure(job))
    except (harness.BenchmarkError, OSError) as failure:
        print(f"{contender.name}, {case.name}: {failure}", file=sys.stderr)
        fault = " ".join(str(failure).partition("; the server's log:")[0].split())
        return Run(number, case.name, contender.name, fault=fault)


def _run_all(plan: Plan, lines: Path) -> list[Run]:
    """Make the runs while there is time, and write each to the file at once."""
    runs: list[Run] = []
    began_at = time.monotonic()
    tries = 0
    with lines.open("w") as file:
        for made, (number, case, contender) in enumerate(plan.runs()):
            took = time.monotonic() - began_at
            if plan.limit - took < plan.needed(1):
                break
            run = _run_once(number, case, contender, plan.seconds)
            tries += 1
            each = max(plan.needed(1), (time.monotonic() - began_at) / tries)
            if run.is_disturbed and plan.limit - took > each * (plan.total - made + 1):
                again = _run_once(number, case, contender, plan.seconds)
                tries += 1
                run = attrs.evolve(_calmer(run, again), tries=_MAX_TRIES)
            runs.append(run)
            file.write(json.dumps(run.as_line()) + "\n")
            file.flush()
            print(f"{made + 1}/{plan.total} {run}", file=sys.stderr)
    return runs


def _calmer(first: Run, second: Run) -> Run:
    if first.outcome and second.outcome and second.outcome.foreign < first.outcome.foreign:
        return second
    return first


def _options() -> argparse.Namespace:
    names = [case.name for case in CASES]
    parser = harness.parser(__doc__)
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="SERVER", help="servers whose names contain it"
    )
    parser.add_argument("--cases", nargs="+", metavar="CASE", choices=names, help=", ".join(names))
    parser.add_argument(
        "--short",
        action="store_true",
        help=f"a choice of cases and servers, {_SHORT_ROUNDS} rounds, {_SHORT_MINUTES:g} min",
    )
    parser.add_argument(
        "--rounds", type=harness.at_least_one, help=f"default: {_ROUNDS}, short: {_SHORT_ROUNDS}"
    )
    parser.add_argument(
        "--seconds",
        type=harness.seconds,
        help=f"per run; default: what fits, at most {_MAX_SECONDS:g}",
    )
    parser.add_argument(
        "--minutes",
        type=float,
        help=f"limit for all runs; default: {_MINUTES:g}, short: {_SHORT_MINUTES:g}",
    )
    parser.add_argument(
        "--linepool", nargs="+", default=[], metavar="OPTION=VALUE", help="as --workers=4"
    )
    parser.add_argument("--output", type=Path, default=harness.HERE / "results")
    parser.add_argument(
        "--report",
        type=Path,
        nargs="?",
        const=_PAGE,
        metavar="FILE",
        help="write the page to docs/benchmarks.md, or to FILE; otherwise to OUTPUT/speed.md",
    )
    options = parser.parse_args()
    if options.cases is None:
        options.cases = cases.SHORT if options.short else names
    options.rounds = options.rounds or (_SHORT_ROUNDS if options.short else _ROUNDS)
    options.minutes = options.minutes or (_SHORT_MINUTES if options.short else _MINUTES)
    return options


def _plan(options: argparse.Namespace, contenders: Sequence[Contender]) -> Plan:
    chosen = [case for case in CASES if case.name in options.cases]
    pairs = [(case, one) for case in chosen for one in contenders if case.name in one.cases]
    if not pairs:
        raise harness.BenchmarkError(
            "none of these servers takes part in these cases; see --only and --cases"
        )
    limit = options.minutes * 60
    fitting = limit * (1 - _FOR_REPEATING) / (options.rounds * len(pairs)) - _OVERHEAD
    seconds = options.seconds or round(max(_MIN_SECONDS, min(_MAX_SECONDS, fitting)), 2)
    return Plan(pairs, options.rounds, seconds, limit)


def _conditions(plan: Plan, runs: Sequence[Run], took: float) -> list[str]:
    repeated = sum(run.tries > 1 for run in runs)
    command = shlex.join(["./dev", "bench", *sys.argv[1:]])
    return [
        f"{time.strftime('%Y-%m-%d')}, {harness.machine()}, {meter.processor()}",
        core.about,
        f"rounds: {plan.rounds}; {plan.seconds:g} s per run, after {measure.WARM_UP:g} s to warm up",
        f"{len(runs)} of {plan.total} runs made in {took / 60:.1f} min; {repeated} of them twice,"
        " because other processes used the CPU",
        f"to repeat: `{command}`",
    ]


def _plot(results: Results, page: Path) -> str:
    """Draw the plot of a page and return its path relative to the page; "": there is none."""
    if not results.overview() or harness.module_missing("matplotlib"):
        return ""
    path = page.with_suffix("") / "servers.svg"
    path.parent.mkdir(exist_ok=True)
    plots.draw(results, path)
    return path.relative_to(page.parent).as_posix()


def _chosen(options: argparse.Namespace, cserver: Path) -> tuple[list[Contender], list[str]]:
    """Return the servers to measure, and those that are not installed, with the reason."""
    given = ["--" + option.lstrip("-") for option in options.linepool]
    contenders = all_contenders(cserver, given)
    if options.short:
        contenders = [one for one in contenders if not one.is_extra]
    if options.only:
        words = [word.lower() for word in options.only]
        contenders = [c for c in contenders if any(word in c.name.lower() for word in words)]
    contenders = [one for one in contenders if set(one.cases) & set(options.cases)]
    missing = [(one, one.missing()) for one in contenders]
    absent = list(dict.fromkeys(f"{one.name}: needs {what}" for one, what in missing if what))
    return [one for one, what in missing if not what], absent


def _run() -> int:
    options = _options()
    page: Path = options.report or options.output / "speed.md"
    for directory in (options.output, page.parent):
        directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="linepool-bench-") as scratch:
        cserver = Path(scratch, "cserver")
        contenders, absent = _chosen(options, cserver)
        plan = _plan(options, contenders)
        load.build()
        starting.compile_cserver(cserver)
        minutes = plan.needed(plan.total) / 60
        print(f"{plan.total} runs of {plan.seconds:g} s: {minutes:.0f} min", file=sys.stderr)
        began_at = time.monotonic()
        runs = _run_all(plan, options.output / "speed.jsonl")
        took = time.monotonic() - began_at
    results = Results(runs)
    conditions = _conditions(plan, runs, took)
    text = report.markdown(results, _plot(results, page), contenders, absent, conditions)
    print(text)
    page.write_text(text)
    return 1 if len(runs) < plan.total or any(run.problem for run in runs) else 0


if __name__ == "__main__":
    harness.main(_run)
