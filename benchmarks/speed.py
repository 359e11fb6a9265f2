"""How many requests, after how long, and for how much processor time - beside other servers.

Sums over lines: linepool, a reference in C, uvloop, asyncio, gevent, Twisted, socketserver and
Net::Server::PreFork; the same sum over HTTP: gunicorn and uWSGI; memcached and Redis beside the
examples that speak like them. One connection to many, pipelined, a connection for each request, and
a fixed rate.

All servers of a case are measured one after the other, each started anew, in another order in each
round. Prints a report, and writes it, the runs as JSON lines, and two plots, which the report shows:
they are in a directory beside it that has its name.
"""

from __future__ import annotations

import argparse
import json
import random
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs
import harness
import load
import speed_goals
import speed_load
import speed_meter
import speed_report
from attrs import frozen
from harness import find
from speed_report import Run
from speed_servers import CASES, Case, Contender, all_contenders

_MOST_SECONDS = 1.5  # of one run, unless told otherwise
_LEAST_SECONDS = 0.3
_AROUND = 0.7  # seconds, about, to start a server, warm it up and stop it
_FOR_REPEATING = 0.1  # of the time, for runs that others have disturbed
_SETTLE_LIMIT = 3.0  # seconds
_MOST_TRIES = 2


@frozen
class Plan:
    """What is to be measured, and how long; times in seconds."""

    pairs: Sequence[tuple[Case, Contender]]
    rounds: int
    seconds: float
    limit: float

    @property
    def total(self) -> int:
        """How many runs there are."""
        return self.rounds * len(self.pairs)

    def needed(self, runs: int) -> float:
        """Return how long so many runs take, about."""
        return runs * (self.seconds + _AROUND)

    def runs(self) -> Iterator[tuple[int, Case, Contender]]:
        """Yield round by round, case by case, the servers in another order each time."""
        for number in range(self.rounds):
            order = random.Random(number)  # the same for everybody who repeats it
            for case in CASES:
                taking_part = [contender for one, contender in self.pairs if one == case]
                for contender in order.sample(taking_part, len(taking_part)):
                    yield number, case, contender


def _run_once(number: int, case: Case, contender: Contender, seconds: float) -> Run:
    """Start a server, measure it, and stop it; what fails is told in the result."""
    with tempfile.TemporaryDirectory(
        prefix="linepool-bench-", ignore_cleanup_errors=True
    ) as directory:
        port = harness.free_port()
        log = Path(directory, "log")
        program = harness.Program(contender.arguments(port, case), log, cwd=Path(directory))
        try:
            harness.until(f"{contender.name} is up", lambda: _is_up(program, contender, port))
            speed_meter.settle(program.pid, _SETTLE_LIMIT)
            job = speed_load.Job(case, contender.exchange, port, program.pid, seconds)
            return Run(number, case.name, contender.name, speed_load.measure(job))
        except (harness.BenchmarkError, OSError) as failure:
            print(f"{contender.name}, {case.name}: {failure}; its log:", file=sys.stderr)
            print(log.read_text(errors="replace")[-1000:], file=sys.stderr)
            fault = " ".join(str(failure).split())
            return Run(number, case.name, contender.name, fault=fault)
        finally:
            program.stop()


def _is_up(program: harness.Program, contender: Contender, port: int) -> bool:
    is_ready = bool(program.said(contender.says))  # raises if it has ended
    if contender.says and not is_ready:
        return False
    try:
        if contender.before:
            contender.before.once(port)
        return bool(contender.exchange.once(port))
    except OSError:
        return False


def _run_all(plan: Plan, lines: Path) -> list[Run]:
    """Make the runs, as long as there is time, and write each down at once."""
    runs: list[Run] = []
    began_at = time.monotonic()
    with lines.open("w") as file:
        for made, (number, case, contender) in enumerate(plan.runs()):
            left = plan.limit - (time.monotonic() - began_at)
            if left < plan.needed(1):
                break
            run = _run_once(number, case, contender, plan.seconds)
            if run.is_disturbed and left > plan.needed(plan.total - made + 1):
                again = _run_once(number, case, contender, plan.seconds)
                run = attrs.evolve(_calmer(run, again), tries=_MOST_TRIES)
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
    parser.add_argument("--only", nargs="+", default=[], metavar="SERVER", help="servers named so")
    parser.add_argument(
        "--cases", nargs="+", default=names, metavar="CASE", choices=names, help=", ".join(names)
    )
    parser.add_argument(
        "--rounds", type=harness.at_least_one, default=3, help="default: %(default)s"
    )
    parser.add_argument(
        "--seconds",
        type=harness.seconds,
        help=f"of one run; default: what fits, at most {_MOST_SECONDS}",
    )
    parser.add_argument(
        "--minutes", type=float, default=14, help="limit of all runs; default: %(default)s"
    )
    parser.add_argument(
        "--linepool", nargs="+", default=[], metavar="OPTION=VALUE", help="as --workers=4"
    )
    parser.add_argument("--output", type=Path, default=harness.HERE / "results")
    parser.add_argument("--report", type=Path, metavar="FILE", help="default: OUTPUT/speed.md")
    return parser.parse_args()


def _plan(options: argparse.Namespace, contenders: Sequence[Contender]) -> Plan:
    cases = [case for case in CASES if case.name in options.cases]
    pairs = [(case, one) for case in cases for one in contenders if one.takes(case)]
    if not pairs:
        raise harness.BenchmarkError("none of these servers takes part in these cases")
    limit = options.minutes * 60
    fitting = limit * (1 - _FOR_REPEATING) / (options.rounds * len(pairs)) - _AROUND
    seconds = options.seconds or round(max(_LEAST_SECONDS, min(_MOST_SECONDS, fitting)), 2)
    return Plan(pairs, options.rounds, seconds, limit)


def _compile(program: Path) -> None:
    command = [find("cc"), "-O2", "-o", str(program), str(harness.TARGETS / "cserver.c")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise harness.BenchmarkError(f"cserver.c does not compile:\n{done.stderr}")


def _conditions(plan: Plan, runs: Sequence[Run]) -> list[str]:
    repeated = sum(run.tries > 1 for run in runs)
    command = shlex.join(["./dev", "bench", "speed", *sys.argv[1:]])
    return [
        f"{time.strftime('%Y-%m-%d')}, {harness.machine()}, {speed_meter.processor()}",
        f"{plan.rounds} rounds; {plan.seconds:g} s for each run, after {speed_load.WARM_UP:g} s"
        " to warm up",
        f"{len(runs)} of {plan.total} runs made; {repeated} of them twice, because others used the"
        " processors",
        f"to repeat: `{command}`",
    ]


def _plots(runs: Sequence[Run], page: Path) -> dict[str, str]:
    """Draw the plots for a page; return their titles, and where they are as seen from it."""
    if harness.module_missing("matplotlib"):
        print("no plots: matplotlib is missing", file=sys.stderr)
        return {}
    directory = page.with_suffix("")
    directory.mkdir(exist_ok=True)
    drawn = speed_report.plot(runs, directory)
    return {title: path.relative_to(page.parent).as_posix() for title, path in drawn.items()}


def _run() -> int:
    options = _options()
    page: Path = options.report or options.output / "speed.md"
    for directory in (options.output, page.parent):
        directory.mkdir(parents=True, exist_ok=True)
    given = ["--" + option.lstrip("-") for option in options.linepool]
    with tempfile.TemporaryDirectory(prefix="linepool-bench-") as scratch:
        cserver = Path(scratch, "cserver")
        contenders = all_contenders(cserver, given)
        if options.only:
            words = [word.lower() for word in options.only]
            contenders = [c for c in contenders if any(word in c.name.lower() for word in words)]
        absent = [f"{c.name}: not installed ({c.missing()})" for c in contenders if c.missing()]
        contenders = [contender for contender in contenders if not contender.missing()]
        plan = _plan(options, contenders)
        load.build()
        _compile(cserver)
        minutes = plan.needed(plan.total) / 60
        print(f"{plan.total} runs of {plan.seconds:g} s: {minutes:.0f} min", file=sys.stderr)
        runs = _run_all(plan, options.output / "speed.jsonl")
    measured = [one for one in contenders if any(one.takes(case) for case, _ in plan.pairs)]
    goals, plots = speed_goals.table(runs), _plots(runs, page)
    report = speed_report.markdown(runs, goals, plots, measured, absent, _conditions(plan, runs))
    print(report)
    page.write_text(report)
    return 1 if len(runs) < plan.total or any(run.told for run in runs) else 0


if __name__ == "__main__":
    harness.main(_run)
