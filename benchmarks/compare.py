"""Compare the server CPU per request of this tree with another commit: paired runs, alternating.

The other commit is checked out to a temporary directory. Both serve the same handlers with two workers.
The compiled core of the other commit is built there; with LINEPOOL_PURE=1, or with commits that have none,
pure Python is compared.

    python -m benchmarks.compare HEAD~1
    python -m benchmarks.compare 64915e2 --rounds 12 --cases ping-pong-64 accept-connect-2
"""

from __future__ import annotations

import contextlib
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from attrs import evolve, frozen

from benchmarks import harness, load
from benchmarks.meter import Sample, sample
from linepool import core

ROOT = harness.HERE.parent


@frozen
class Case:
    """A load, and the scheme of the servers."""

    load: load.Load
    scheme: str = "shared"


CASES = {
    "ping-pong-64": Case(load.Load(connections=64)),
    "ping-pong-2": Case(load.Load(connections=2)),
    "pipelined-16": Case(load.Load(connections=2, depth=16)),
    "connect-16": Case(load.Load(connections=16, mode="connect", reset=True)),
    "connect-2": Case(load.Load(connections=2, mode="connect", reset=True)),
    "accept-ping-pong-2": Case(load.Load(connections=2), "accept"),
    "accept-connect-2": Case(load.Load(connections=2, mode="connect", reset=True), "accept"),
}


@contextlib.contextmanager
def checked_out(commit: str, directory: Path) -> Iterator[Path]:
    """Give the tree of a commit.

    Raises:
        BenchmarkError: There is no such commit.
    """
    tree = directory / "base"
    tree.mkdir()
    archive = subprocess.run(["git", "archive", commit], cwd=ROOT, capture_output=True, check=False)
    if archive.returncode:
        raise harness.BenchmarkError(f"git archive {commit}: {archive.stderr.decode().strip()}")
    subprocess.run(["tar", "-x", "-C", str(tree)], input=archive.stdout, check=True)
    if core.compiled and (tree / "linepool" / "core").exists():
        build = [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"]
        subprocess.run(build, cwd=tree, check=True)
    yield tree


@contextlib.contextmanager
def serving(tree: Path, scheme: str, directory: Path) -> Iterator[harness.Program]:
    """Serve with the linepool of a tree."""
    directory.mkdir()
    command = [sys.executable, "-m", "linepool", "run", str(harness.TARGETS / "lines_app.py")]
    command += ["--bind", "127.0.0.1:0", "--control", "off", "--workers", "2", "--scheme", scheme]
    program = harness.Program(command, directory / "log", cwd=tree)
    try:
        harness.until("linepool is ready", lambda: program.said("ready:"))
        yield program
    finally:
        program.stop()


def cpu_us(program: harness.Program, job: load.Load) -> float:
    """Return the server CPU per request under a load, in us."""
    samples: dict[str, Sample] = {}
    port = int(program.said("listening on ").rpartition(":")[2])
    found = load.run(port, job, lambda phase: samples.update({phase: sample(program.pid)}))
    begin, end = samples["measure"], samples["end"]
    rate = (end.server - begin.server) / (end.at - begin.at)
    return rate * found.seconds / max(1, found.answered) * 1e6


def compare(name: str, base: Path, directory: Path, rounds: int, seconds: float) -> list[object]:
    """Return the row of one case."""
    case = CASES[name]
    job = evolve(case.load, seconds=seconds)
    before, after = [], []
    for number in range(rounds):
        order = [(base, before), (ROOT, after)]
        for tree, figures in order if number % 2 else reversed(order):
            place = directory / f"{name}-{number}-{len(before)}-{len(after)}"
            with serving(tree, case.scheme, place) as program:
                figures.append(cpu_us(program, job))
    ratios = [new / old for old, new in zip(before, after, strict=True)]
    quartiles = statistics.quantiles(ratios, n=4) if rounds > 1 else [ratios[0]] * 3
    return [
        name,
        f"{statistics.median(before):.1f}",
        f"{statistics.median(after):.1f}",
        f"{statistics.median(ratios):.3f}",
        f"{quartiles[0]:.2f} to {quartiles[2]:.2f}",
    ]


def _run() -> int:
    parser = harness.parser(__doc__)
    parser.add_argument("commit", help="what to compare with")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), metavar="CASE")
    harness.add_round_options(parser, 10, 1.5)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as name,
        checked_out(options.commit, Path(name)) as base,
    ):
        rows = []
        for case in options.cases:
            rows.append(compare(case, base, Path(name), options.rounds, options.seconds))
            print(*rows[-1], file=sys.stderr)
    print(f"{harness.machine()}; this tree: {core.about}")
    print(f"Server CPU per request in us, medians of {options.rounds} paired runs.")
    headings = ["case", options.commit, "this tree", "ratio", "its quartiles"]
    print(harness.table(headings, rows))
    return 0


if __name__ == "__main__":
    harness.main(_run)
