"""Measure what many connections cost, and compare the schemes of linepool.

Parts, for --only:
  idle       thousands of idle connections beside busy ones: speed, and memory per connection
  schemes    accept, dispatch and shared side by side

Each part includes a uvloop server with the same commands. Every reply is checked. Rounds are
interleaved, figures are medians over them.
"""

from __future__ import annotations

import contextlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from attrs import define, field, frozen

from benchmarks import harness, load, meter

_LINES = harness.TARGETS / "lines_app.py"
_UVLOOP = "uvloop"
_SETTLE = 1.0  # seconds between the last idle connection and the load; parking takes 0.05 s
_SPEED = ["requests/s", "min-max", "to uvloop", "p50 µs", "p99 µs", "CPU µs/request"]
_FOREIGN = 0.12  # processors; runs during which other processes used more are reported


@frozen(kw_only=True)
class Contender:
    """A server.

    Attributes:
        scheme: The scheme of linepool; "": the server is uvloop.
        processes: The number of workers or of event loops.
    """

    scheme: str = ""
    processes: int = 2
    options: tuple[str, ...] = ()
    remark: str = ""

    @property
    def name(self) -> str:
        """Its name in the tables."""
        kind = f"linepool {self.scheme}" if self.scheme else f"uvloop x{self.processes}"
        return f"{kind}, {self.remark}" if self.remark else kind

    @property
    def missing(self) -> str:
        """Why it cannot run; "": it can."""
        if not self.scheme:
            return "uvloop is not installed" if harness.module_missing(_UVLOOP) else ""
        command = [sys.executable, "-m", "linepool", "check", str(_LINES), *self._settings()]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.stderr.strip() if done.returncode else ""

    def _settings(self) -> list[str]:
        return ["--scheme", self.scheme, "--workers", str(self.processes), *self.options]

    @contextlib.contextmanager
    def serving(self) -> Iterator[Peer]:
        """Run the server while the block runs."""
        with tempfile.TemporaryDirectory(prefix="linepool-bench-") as name:
            directory = Path(name)
            if self.scheme:
                with harness.serving(_LINES, *self._settings(), directory=directory) as server:
                    yield Peer(server.pid, server.port)
                return
            script = str(harness.TARGETS / "asyncio_lines.py")
            command = [sys.executable, script, "--loop", _UVLOOP]
            command += ["--processes", str(self.processes)]
            program = harness.Program(command, directory / "log")
            try:
                harness.until("uvloop serves", lambda: program.said("ready"))
                line = program.said("listening on ")
                yield Peer(program.pid, int(line.rpartition(":")[2]))
            finally:
                program.stop()


@frozen
class Peer:
    """A running server."""

    pid: int
    port: int


@frozen
class Case:
    """A load, and its name in the tables."""

    name: str
    load: load.Load


@frozen
class Run:
    """One server under one load, once.

    Attributes:
        cpu_us: Processor time per request, of all processes of the server.
        foreign: Processors used by other processes meanwhile.
        memory: Private bytes before and with the idle connections, if there are any.
    """

    figures: load.Figures
    cpu_us: float
    foreign: float
    memory: tuple[int, int] | None


@define
class _Watch:
    """Measures the server at the start of each phase of lineload."""

    peer: Peer
    settle: float
    samples: list[meter.Sample] = field(factory=list)
    private: int = 0

    def on_phase(self, phase: str) -> None:
        """Measure what belongs to a phase."""
        if phase == "settle":
            time.sleep(0.8 * self.settle)
            self.private = _private_bytes(self.peer.pid)
        elif phase in ("measure", "end"):
            self.samples.append(meter.sample(self.peer.pid))


def _private_bytes(pid: int) -> int:
    """Return the private memory of a process tree."""
    return meter.private_bytes(meter.tree(pid))


def measure(peer: Peer, case: Case) -> Run:
    """Load a server once."""
    watch = _Watch(peer, case.load.settle)
    before = _private_bytes(peer.pid)
    figures = load.run(peer.port, case.load, watch.on_phase)
    first, last = watch.samples
    server = last.server - first.server
    others = last.machine - first.machine - (last.ours - first.ours) - server - figures.cpu_s
    return Run(
        figures,
        server / max(1, figures.answered) * 1e6,
        others / (last.at - first.at),
        (before, watch.private) if case.load.idle else None,
    )


@define
class Comparison:
    """Contenders under the same cases, in rounds.

    Attributes:
        runs: By the names of contender and case.
        left_out: The contenders that cannot run, and why.
    """

    contenders: Sequence[Contender]
    cases: Sequence[Case]
    runs: dict[tuple[str, str], list[Run]] = field(factory=dict)
    left_out: list[str] = field(factory=list)

    def make(self, rounds: int) -> None:
        """Measure; each round starts each server again."""
        able = []
        for one in self.contenders:
            if why := one.missing:
                self.left_out.append(f"{one.name} ({why})")
            else:
                able.append(one)
        self.contenders = able
        for _ in range(rounds):
            for one in able:
                with one.serving() as peer:
                    for case in self.cases:
                        self.runs.setdefault((one.name, case.name), []).append(measure(peer, case))

    def median(self, one: Contender, case: Case, figure: Callable[[Run], float]) -> float:
        """Return the median of a figure over the rounds."""
        return statistics.median(map(figure, self.runs[one.name, case.name]))

    def ratio(self, one: Contender, case: Case, figure: Callable[[Run], float]) -> str:
        """Return the ratio of a figure to that of the first uvloop; "-" if there is none."""
        peers = [other for other in self.contenders if not other.scheme]
        if not peers:
            return "-"
        return f"{self.median(one, case, figure) / self.median(peers[0], case, figure):.2f}"

    def rows(self, cells: Callable[[Contender, Case], list[str]]) -> list[list[str]]:
        """Return a row per case and contender."""
        return [cells(one, case) for case in self.cases for one in self.contenders]

    def spread(self, one: Contender, case: Case, figure: Callable[[Run], float]) -> str:
        """Return the minimum and maximum of a figure."""
        values = [figure(run) for run in self.runs[one.name, case.name]]
        return f"{min(values):,.0f}-{max(values):,.0f}"

    def note(self) -> str:
        """Return the contenders that were left out, and what disturbed the runs."""
        every = [run for runs in self.runs.values() for run in runs]
        disturbed = [run.foreign for run in every if run.foreign > _FOREIGN]
        lines = [f"Left out: {one}." for one in self.left_out]
        if every:
            busiest = max(run.figures.cpu_s / run.figures.seconds for run in every)
            lines.append(f"The load generator used up to {busiest:.2f} processors.")
        if disturbed:
            lines.append(
                f"Other processes used more than {_FOREIGN:g} processors during {len(disturbed)} of"
                f" {len(every)} runs, up to {max(disturbed):.2f}."
            )
        return "\n".join(lines)

    def faults(self) -> list[str]:
        """Return the runs with errors or dropped idle connections."""
        return [
            f"{name}, {case}: {run.figures.errors} errors, {run.figures.dropped_idle} idle dropped"
            for (name, case), runs in self.runs.items()
            for run in runs
            if run.figures.errors or run.figures.dropped_idle
        ]


@frozen(kw_only=True)
class Options:
    """The options of the command line."""

    seconds: float
    rounds: int
    idle: int


def rps(run: Run) -> float:
    return run.figures.rps


def p50(run: Run) -> float:
    return run.figures.latency.p50


def p99(run: Run) -> float:
    return run.figures.latency.p99


def cpu_us(run: Run) -> float:
    return run.cpu_us


def _title(text: str) -> None:
    print(f"## {text}\n")


def part_idle(options: Options) -> list[str]:
    """Measure thousands of idle connections beside busy ones."""
    room = ("--max-connections", str(2 * options.idle))
    contenders = [Contender(scheme="shared", options=room), Contender()]
    cases = [
        Case(
            f"{idle:,} idle",
            load.Load(
                connections=64, seconds=options.seconds, idle=idle, settle=_SETTLE if idle else 0.0
            ),
        )
        for idle in (0, options.idle)
    ]
    found = Comparison(contenders, cases)
    found.make(options.rounds)
    _title(f"{options.idle:,} idle connections beside 64 busy ones, 2 workers")
    rows = found.rows(
        lambda one, case: [
            one.name,
            f"{case.load.idle:,}",
            f"{found.median(one, case, rps):,.0f}",
            found.spread(one, case, rps),
            found.ratio(one, case, rps),
            f"{found.median(one, case, p50):,.0f}",
            f"{found.median(one, case, p99):,.0f}",
            f"{found.median(one, case, cpu_us):.1f}",
        ]
    )
    print(harness.table(["server", "idle", *_SPEED], rows))
    print("\nPrivate memory of all processes, before and with the idle connections:\n")
    headings = ["server", "before MB", "with MB", "bytes/connection", "to uvloop"]
    print(harness.table(headings, _memory_rows(found)))
    print(f"\n{found.note()}\n")
    return found.faults()


def _memory_rows(found: Comparison) -> list[list[str]]:
    def before(run: Run) -> float:
        return run.memory[0] / 1e6 if run.memory else 0.0

    def after(run: Run) -> float:
        return run.memory[1] / 1e6 if run.memory else 0.0

    case = found.cases[-1]

    def each(run: Run) -> float:
        return (run.memory[1] - run.memory[0]) / case.load.idle if run.memory else 0.0

    return [
        [
            one.name,
            f"{found.median(one, case, before):.1f}",
            f"{found.median(one, case, after):.1f}",
            f"{found.median(one, case, each):,.0f}",
            found.ratio(one, case, each),
        ]
        for one in found.contenders
    ]


def part_schemes(options: Options) -> list[str]:
    """Compare the schemes accept, dispatch and shared."""
    contenders = [
        Contender(scheme="shared"),
        Contender(scheme="dispatch"),
        Contender(scheme="accept", processes=16, remark="16 workers"),
        Contender(),
    ]
    seconds = options.seconds
    cases = [
        Case("2 clients", load.Load(connections=2, seconds=seconds)),
        Case("16 clients", load.Load(connections=16, seconds=seconds)),
        Case("2 clients, 16 deep", load.Load(connections=2, depth=16, seconds=seconds)),
        Case(
            "4 clients, a connection per request",
            load.Load(connections=4, mode="connect", reset=True, seconds=seconds),
        ),
    ]
    found = Comparison(contenders, cases)
    found.make(options.rounds)
    _title("The schemes side by side")
    rows = found.rows(
        lambda one, case: [
            f"{case.name}: {one.name}",
            f"{found.median(one, case, rps):,.0f}",
            found.spread(one, case, rps),
            found.ratio(one, case, rps),
            f"{found.median(one, case, p50):,.0f}",
            f"{found.median(one, case, p99):,.0f}",
            f"{found.median(one, case, cpu_us):.1f}",
        ]
    )
    print(harness.table(["load and server", *_SPEED], rows))
    print(f"\n{found.note()}\n")
    return found.faults()


_PARTS: dict[str, Callable[[Options], list[str]]] = {
    "idle": part_idle,
    "schemes": part_schemes,
}


def _run() -> int:
    parser = harness.parser(__doc__)
    parser.add_argument("--only", nargs="+", choices=list(_PARTS), default=list(_PARTS))
    harness.add_round_options(parser, 3, 1.5)
    parser.add_argument("--idle", type=int, default=10_000, help="connections; default: 10000")
    arguments = vars(parser.parse_args())
    only = arguments.pop("only")
    options = Options(**arguments)
    load.build()
    began = time.monotonic()
    print(
        f"# Connections\n\n{options.rounds} rounds of {options.seconds:g} s; {harness.machine()}\n"
    )
    faults = [
        f"{name}: {fault}" for name in _PARTS if name in only for fault in _PARTS[name](options)
    ]
    print(f"Took {time.monotonic() - began:.0f} s.", flush=True)
    print("FAILED: " + "; ".join(faults) if faults else "OK")
    return 1 if faults else 0


if __name__ == "__main__":
    harness.main(_run)
