"""Compare linepool with asyncio, uvloop, gunicorn, grpcio, Redis functions, Twisted and socketserver.

The same small service runs on each of them. Some clients send it requests at a steady rate, while a request
computes without end, others wait, a process crashes, new code arrives, or the load triples. The tables say
what these clients notice. With --write, the figures go into docs/compare.
"""

from __future__ import annotations

import datetime
import functools
import os
import sys
import time

from benchmarks import harness, meter
from benchmarks.comparisons import pages, tables, trials
from benchmarks.comparisons.contenders import OURS, Contender, all_contenders
from benchmarks.comparisons.trials import Report

_CALM = 0.25  # processors
_BUSY = ": compare what fails, and CPU per request; the times are longer than on an idle machine"


def _chosen(names: list[str] | None) -> list[Contender]:
    contenders = all_contenders()
    known = [one.name for one in contenders[1:]]
    for name in names or []:
        if name not in known:
            raise harness.BenchmarkError(f"unknown peer {name!r}; the peers are {', '.join(known)}")
    return [one for one in contenders if not names or one.name in (OURS, *names)]


def _note(title: str, began: float, trial: str) -> None:
    print(f"{time.monotonic() - began:4.0f} s  {title}: {trial}", file=sys.stderr)


def _measured(contenders: list[Contender], pace: trials.Pace) -> tuple[list[Report], float]:
    """Return what was measured, and how many processors other programs used meanwhile."""
    began = meter.sample(os.getpid())
    reports = []
    for contender in contenders:
        if missing := contender.missing():
            print(f"left out: {contender.title} needs {missing}", file=sys.stderr)
            continue
        note = functools.partial(_note, contender.title, began.at)
        reports.append(trials.measure(contender, pace, note))
    ended = meter.sample(os.getpid())
    others = (ended.machine - began.machine) - (ended.server - began.server)
    return reports, max(0.0, others / (ended.at - began.at))


def _conditions(reports: list[Report], foreign: float, option: str) -> str:
    versions = [f"{one.contender.title} {one.version}" for one in reports if one.version]
    lines = [
        f"{datetime.datetime.now(tz=datetime.UTC):%Y-%m-%d}, {harness.machine()}, {meter.processor()}",
        ", ".join(versions),
        f"other programs used {foreign:.1f} processors during the run" + _BUSY * (foreign > _CALM),
        f"to repeat: `./dev bench comparisons{option}`",
    ]
    return "\n".join(f"- {line}" for line in lines)


def _show(reports: list[Report], conditions: str) -> None:
    ours, *peers = reports
    print(conditions)
    for title, facts in tables.SECTIONS.values():
        print(f"\n## {title}\n")
        for page in dict.fromkeys(one.contender.page for one in peers):
            beside = [one for one in peers if one.contender.page == page]
            print(tables.table(facts, ours, beside) + "\n")
    print("## All\n\n" + tables.overview(reports, pages.code_lines))


def _run() -> int:
    parser = harness.parser(__doc__)
    parser.add_argument(
        "--peer", nargs="+", metavar="NAME", help="measure only these beside linepool"
    )
    parser.add_argument("--short", action="store_true", help="2 minutes instead of 5")
    parser.add_argument("--write", action="store_true", help="write the figures into docs/compare")
    options = parser.parse_args()
    if options.write and options.peer:
        parser.error("--write needs the figures of all peers: leave out --peer")
    contenders = _chosen(options.peer)
    pace = trials.SHORT if options.short else trials.Pace()
    reports, foreign = _measured(contenders, pace)
    conditions = _conditions(reports, foreign, " --short" if options.short else "")
    _show(reports, conditions)
    if options.write:
        if len(reports) < len(contenders):
            raise harness.BenchmarkError("--write needs the figures of all peers; some are missing")
        pages.write_figures(reports, conditions)
    return int(bool(reports[0].deployment.others.failed))


if __name__ == "__main__":
    harness.main(_run)
