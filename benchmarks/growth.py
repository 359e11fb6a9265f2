"""Measure how cost grows with the workers, the open connections and the registered handlers.

Parts, for --only:
  workers      1 to 64 workers, for 64 clients
  connections  1 to 10,000 open, of which at most 16 are busy; beside uvloop with two processes
  handlers     1 to 1,000 registered, of which one is called

The rate of requests is the same for all, so the rows of a table can be compared. Figures are medians
over the rounds, in parentheses the ratio to the server's first row. CPU is of all processes of the
server, with those of master and parker in separate columns. Memory is private memory, per worker on
average; "all MB" includes shared memory once. Rounds are interleaved, and each run starts a server.
"""

from __future__ import annotations

import contextlib
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from attrs import define, field, frozen

from benchmarks import connections, harness, load, meter

_OURS = "linepool"
_PEER = connections.Contender()  # uvloop
_BUSY = 16  # connections
_WARM_UP = 0.5  # seconds
_SETTLE = 4.0  # seconds; latencies are longer for a while after 10,000 connections were opened
_GROWN = 1.1  # times the first row; less is not reported


@frozen(kw_only=True)
class Case:
    """What one row measures.

    Attributes:
        size: The number of what grows in this part.
        clients: Busy connections.
        idle: Idle connections.
    """

    server: str = _OURS
    size: int
    workers: int = 2
    clients: int = _BUSY
    idle: int = 0
    handlers: int = 1


_OPEN = (1, 10, 100, 1000, 10_000)
_PARTS = {
    "workers": [Case(size=n, workers=n, clients=64) for n in (1, 2, 4, 8, 16, 32, 64)],
    "connections": [
        Case(server=server, size=n, clients=min(n, _BUSY), idle=max(0, n - _BUSY))
        for server in (_OURS, _PEER.name)
        for n in _OPEN
    ],
    "handlers": [Case(size=n, handlers=n) for n in (1, 10, 100, 1000)],
}


@frozen
class Peer:
    """A running server, by the pids of its processes.

    Attributes:
        parker: Its pid, or none.
        ready_ms: How long the start took.
    """

    port: int
    master: int
    parker: Sequence[int]
    workers: Sequence[int]
    ready_ms: float


@frozen
class Run:
    """One server under load, once.

    Attributes:
        cpu_us: Processor time per request, of all processes.
        master: Percent of a processor, as parker.
        p50: Latency in us, as p99.
        worker_mb: Average per worker.
        all_mb: Of all processes, shared memory once.
        foreign: Processors used by other processes meanwhile.
        faults: Errors and dropped idle connections.
    """

    cpu_us: float
    master: float
    parker: float
    p50: float
    p99: float
    master_mb: float
    parker_mb: float
    worker_mb: float
    all_mb: float
    ready_ms: float
    foreign: float
    faults: int


_FIGURES: dict[str, Callable[[Run], float]] = {
    "CPU µs/request": lambda run: run.cpu_us,
    "master CPU %": lambda run: run.master,
    "parker CPU %": lambda run: run.parker,
    "p50 µs": lambda run: run.p50,
    "p99 µs": lambda run: run.p99,
    "master MB": lambda run: run.master_mb,
    "parker MB": lambda run: run.parker_mb,
    "worker MB": lambda run: run.worker_mb,
    "all MB": lambda run: run.all_mb,
    "ready ms": lambda run: run.ready_ms,
}


@define
class _Watch:
    """Measures the server at the start of each phase of lineload."""

    peer: Peer
    samples: list[tuple[meter.Sample, float, float]] = field(factory=list)
    memory: list[float] = field(factory=list)

    def on_phase(self, phase: str) -> None:
        """Measure what belongs to a phase."""
        peer = self.peer
        if phase == "load":
            time.sleep(_WARM_UP / 2)  # under load, but before the measured time
            for pids in ([peer.master], peer.parker, peer.workers):
                self.memory.append(meter.private_bytes(pids) / 1e6)
            self.memory.append(meter.memory_mb(peer.master))
        elif phase in ("measure", "end"):
            master = meter.own_cpu_seconds(peer.master)
            parker = sum(map(meter.own_cpu_seconds, peer.parker))
            self.samples.append((meter.sample(peer.master), master, parker))


def _measure(peer: Peer, case: Case, rate: float, seconds: float) -> Run:
    """Load a server once."""
    watch = _Watch(peer)
    meter.settle(peer.master, _SETTLE)
    wanted = load.Load(
        connections=case.clients,
        seconds=seconds,
        warm_up=_WARM_UP,
        mode="open",
        rate=rate,
        idle=case.idle,
        settle=_SETTLE if case.idle else 0.0,
    )
    figures = load.run(peer.port, wanted, watch.on_phase)
    (before, *before_each), (after, *after_each) = watch.samples
    took = after.at - before.at
    # Samples may be late on a busy machine, so the figures are rates between two samples.
    server = (after.server - before.server) / took
    master, parker = ((b - a) / took for a, b in zip(before_each, after_each, strict=True))
    total = (after.machine - before.machine - (after.ours - before.ours)) / took
    master_mb, parker_mb, workers_mb, all_mb = watch.memory
    return Run(
        server / figures.rps * 1e6,
        100 * master,
        100 * parker,
        figures.latency.p50,
        figures.latency.p99,
        master_mb,
        parker_mb,
        workers_mb / len(peer.workers),
        all_mb,
        peer.ready_ms,
        total - server - figures.cpu_s / figures.seconds,
        figures.errors + figures.dropped_idle,
    )


@contextlib.contextmanager
def _serving(case: Case) -> Iterator[Peer]:
    """Run the server of a case while the block runs."""
    began = time.monotonic()
    if case.server != _OURS:
        with _PEER.serving() as peer:
            ready_ms = (time.monotonic() - began) * 1e3
            yield Peer(peer.port, peer.pid, [], harness.children(peer.pid), ready_ms)
        return
    with tempfile.TemporaryDirectory(prefix="linepool-bench-") as name:
        app = Path(name, "app.py")
        app.write_text(_app(case.handlers))
        # Twice the connections: closing and opening ones may overlap.
        options = ["--workers", str(case.workers), "--max-connections", str(2 * max(_OPEN))]
        with harness.serving(app, *options, directory=Path(name)) as server:
            ready_ms = (time.monotonic() - began) * 1e3
            workers = server.workers()
            parker = set(harness.children(server.pid)).difference(workers)
            yield Peer(server.port, server.pid, list(parker), workers, ready_ms)


def _app(handlers: int) -> str:
    """Return the source of an app with ADD and a number of unused handlers."""
    names = ["add", *(f"add_{number}" for number in range(1, handlers))]
    return "import linepool\n" + "".join(
        f"\n\n@linepool.handler\ndef {name}(a: int, b: int) -> int:\n"
        f'    """Add two whole numbers."""\n    return a + b\n'
        for name in names
    )


@define
class Growth:
    """The runs of a part, by case."""

    cases: Sequence[Case]
    runs: dict[Case, list[Run]] = field(factory=dict)

    def make(self, rounds: int, rate: float, seconds: float) -> None:
        """Measure all cases."""
        for _ in range(rounds):
            for case in self.cases:
                with _serving(case) as peer:
                    self.runs.setdefault(case, []).append(_measure(peer, case, rate, seconds))

    def table(self, what: str) -> str:
        """Return the table of the figures, with their ratios to the first row of the same server."""
        rows = []
        for first, group in self._groups():
            for case in group:
                rows.append([case.server, f"{case.size:,}"])
                for figure in _FIGURES.values():
                    value, base = self._median(case, figure), self._median(first, figure)
                    ratio = f"{value / base:.2f}" if base else "-"
                    rows[-1].append(f"{_shown(value)} ({ratio})" if value else "-")
        return harness.table(["server", what, *_FIGURES], rows)

    def summary(self, what: str) -> str:
        """Return for each server the figures that grew from its first to its last row in all rounds."""
        lines = []
        for first, (*_, last) in self._groups():
            grown = [
                f"{heading} {_shown(self._median(first, figure))} to"
                f" {_shown(self._median(last, figure))}"
                for heading, figure in _FIGURES.items()
                if min(map(figure, self.runs[last])) > _GROWN * max(map(figure, self.runs[first]))
            ]
            shown = ", ".join(grown) or f"nothing by more than {_GROWN - 1:.0%}"
            lines.append(
                f"{last.server}, from {first.size:,} to {last.size:,} {what} grows: {shown}."
            )
        return "\n".join(lines)

    def foreign(self) -> float:
        """Return the largest number of processors that other processes used."""
        return max(run.foreign for runs in self.runs.values() for run in runs)

    def faults(self) -> list[str]:
        """Return the runs with lost requests or connections."""
        return [
            f"{case.server}, {case.size:,}: {faults} requests or connections lost"
            for case, runs in self.runs.items()
            if (faults := sum(run.faults for run in runs))
        ]

    def _groups(self) -> Iterator[tuple[Case, list[Case]]]:
        """Yield (first case, all cases) of each server."""
        for _, group in itertools.groupby(self.cases, lambda case: case.server):
            cases = list(group)
            yield cases[0], cases

    def _median(self, case: Case, figure: Callable[[Run], float]) -> float:
        return statistics.median(map(figure, self.runs[case]))


def _shown(value: float) -> str:
    """Return a number with three significant digits, or as an integer."""
    return f"{value:,.{0 if value >= 100 else 1 if value >= 10 else 2}f}"


def _run() -> int:
    parser = harness.parser(__doc__)
    parser.add_argument("--only", nargs="+", choices=list(_PARTS), default=list(_PARTS))
    harness.add_round_options(parser, 3, 1.5)
    parser.add_argument(
        "--rate", type=float, default=4000, help="requests per second; default: %(default)s"
    )
    options = parser.parse_args()
    load.build()
    began = time.monotonic()
    print(
        f"# How cost grows\n\n{options.rate:,.0f} requests/s; {options.rounds} rounds of"
        f" {options.seconds:g} s; {harness.machine()}\n"
    )
    faults = []
    for part in options.only:
        cases = [case for case in _PARTS[part] if case.server == _OURS or not _PEER.missing]
        found = Growth(cases)
        found.make(options.rounds, options.rate, options.seconds)
        print(f"## {part.title()}\n\n{found.table(part)}\n")
        if len(cases) < len(_PARTS[part]):
            print(f"Left out: {_PEER.name} ({_PEER.missing}).")
        print(f"Other processes used up to {found.foreign():.2f} processors.")
        print(f"{found.summary(part)}\n", flush=True)
        faults += [f"{part}: {fault}" for fault in found.faults()]
    print(f"Took {time.monotonic() - began:.0f} s.")
    print("FAILED: " + "; ".join(faults) if faults else "OK")
    return 1 if faults else 0


if __name__ == "__main__":
    harness.main(_run)
