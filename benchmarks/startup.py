"""Measure how long linepool takes to start, beside gunicorn and uvicorn.

``run`` is measured until both workers are up, as the log says;
then the server is stopped. The client commands are measured to their end. CPU time is that of all
processes that a command has started, user and system. Each is started in turn, several times; the minimum
counts, because what else the machine does can only add to it. The ratio is to the same of linepool.
Bytecode is cached for all.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from attrs import frozen

from benchmarks import harness

_MODULE = (sys.executable, "-m")
_LINEPOOL, _GUNICORN, _UVICORN = ((*_MODULE, name) for name in ("linepool", "gunicorn", "uvicorn"))
_AT = "127.0.0.1:0"


@frozen
class Case:
    """A command, and the lines of its log after which it is ready; none: it ends by itself."""

    what: str
    server: str
    words: Sequence[str]
    ready: str = ""
    times: int = 1


@frozen
class Cost:
    """Milliseconds."""

    wall: float
    cpu: float


def _cases() -> list[Case]:
    sums = str(harness.EXAMPLES / "sums.py")
    app = ("--app-dir", str(harness.TARGETS), "asgi_app:application")
    wsgi = ("--chdir", str(harness.TARGETS), "wsgi_app:application")
    return [
        Case(
            "run", "linepool", (*_LINEPOOL, "run", sums, "-w", "2", "-b", _AT), "ready: 2 workers"
        ),
        Case("run", "gunicorn", (*_GUNICORN, "-w", "2", "-b", _AT, *wsgi), "Booting worker", 2),
        Case(
            "run",
            "uvicorn",
            (*_UVICORN, "--workers", "2", "--port", "0", *app),
            "Application startup complete",
            2,
        ),
        *(
            Case(option, server, (*command, option))
            for option in ("--help", "--version")
            for server, command in (
                ("linepool", _LINEPOOL),
                ("gunicorn", _GUNICORN),
                ("uvicorn", _UVICORN),
            )
        ),
        Case("run --help", "linepool", (*_LINEPOOL, "run", "--help")),
        Case("status (no server)", "linepool", (*_LINEPOOL, "status", "--control", "/none")),
        Case("bare Python", "python", (sys.executable, "-c", "")),
    ]


def _cost(case: Case, directory: Path) -> Cost:
    before, began = os.times(), time.perf_counter()
    with (directory / "log").open("wb+") as log:
        process = subprocess.Popen(case.words, stdout=log, stderr=log, cwd=directory)
        if case.ready:
            path = directory / "log"
            harness.until(
                f"{case.server} is ready", lambda: path.read_text().count(case.ready) >= case.times
            )
            wall = time.perf_counter() - began
            process.terminate()
            process.wait(30)
        else:
            process.wait(30)
            wall = time.perf_counter() - began
    after = os.times()
    cpu = after.children_user + after.children_system
    cpu -= before.children_user + before.children_system
    return Cost(wall * 1000, cpu * 1000)


def _best(cases: Sequence[Case], rounds: int, directory: Path) -> dict[Case, Cost]:
    found: dict[Case, list[Cost]] = {case: [] for case in cases}
    for number in range(rounds + 1):
        for case in cases:
            cost = _cost(case, directory)
            if number:  # the first round fills the caches
                found[case].append(cost)
    return {
        case: Cost(min(one.wall for one in costs), min(one.cpu for one in costs))
        for case, costs in found.items()
    }


def main() -> int:
    """Print a table; return the exit status."""
    parser = harness.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="how often each is started")
    options = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        os.environ["PYTHONPYCACHEPREFIX"] = str(directory / "bytecode")
        costs = _best(_cases(), options.rounds, directory)
    own = {case.what: cost for case, cost in costs.items() if case.server == "linepool"}
    rows = [
        (
            case.what,
            case.server,
            f"{cost.wall:.0f}",
            f"{cost.cpu:.0f}",
            f"{cost.cpu / own[case.what].cpu:.2f}" if case.what in own else "",
        )
        for case, cost in costs.items()
    ]
    print(harness.machine())
    print(harness.table(("command", "server", "wall ms", "CPU ms", "CPU ratio"), rows))
    return 0


if __name__ == "__main__":
    harness.main(main)
