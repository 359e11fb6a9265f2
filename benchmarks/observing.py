"""What observing requests costs: server CPU per request with access log, on_error, OpenTelemetry, metrics.

All servers run side by side, with one worker each; in each round each of them has the load for a moment, in
turn. A ratio is that to the server without any of it in the same round.

    python -m benchmarks.observing
    python -m benchmarks.observing --rounds 20 --only nothing "access log, text"
"""

from __future__ import annotations

import contextlib
import statistics
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

from attrs import evolve

from benchmarks import harness, load
from benchmarks.compare import ROOT, cpu_us
from linepool import core

NOTHING = "nothing"
WATCHED = "exporter, 2 scrapes/s, 4 pages"
VARIANTS: dict[str, tuple[str, list[str]]] = {
    NOTHING: ("", []),
    "nothing, again": ("", []),
    "access log, text": ("", ["--access-log", "access"]),
    "access log, json": ("", ["--access-log", "access", "--access-log-format", "json"]),
    "on_error, no errors": ("on_error", []),
    "middleware with call_next": ("call_next", []),
    "generator middleware": ("generator", []),
    "OpenTelemetry": ("opentelemetry", []),
    "exporter": ("", ["--http", "127.0.0.1:0"]),
    WATCHED: ("", ["--http", "127.0.0.1:0"]),
}
"""What is observed, by name: the variable OBSERVED of the app, and options."""
ASKED_EVERY = {"/metrics": 0.5, "/status.json": 0.25}
"""What is asked of the exporter of ``WATCHED``, and how often, in seconds."""
LOADS = {
    "ping-pong": load.Load(connections=2),
    "pipelined-16": load.Load(connections=2, depth=16),
}


@contextlib.contextmanager
def serving(name: str, directory: Path) -> Iterator[harness.Program]:
    """Serve with what is observed."""
    observed, options = VARIANTS[name]
    directory.mkdir()
    command = [sys.executable, "-m", "linepool", "run", str(harness.TARGETS / "observed_app.py")]
    control = str(directory / "control") if "--http" in options else "off"
    command += ["--bind", "127.0.0.1:0", "--control", control, "--workers", "1"]
    command += [str(directory / one) if one == "access" else one for one in options]
    program = harness.Program(command, directory / "log", ROOT, {"OBSERVED": observed})
    try:
        harness.until("linepool is ready", lambda: program.said("ready:"))
        with asking(program) if name == WATCHED else contextlib.nullcontext():
            yield program
    finally:
        program.stop()


@contextlib.contextmanager
def asking(program: harness.Program) -> Iterator[None]:
    """Ask the exporter of a server, as scrapers and open pages do."""
    host = program.said("http on http://").rpartition("http://")[2].rstrip("/")
    done = threading.Event()

    def ask(path: str, every: float) -> None:
        while not done.wait(every):
            with contextlib.suppress(OSError), urlopen(f"http://{host}{path}", timeout=5) as reply:
                reply.read()

    threads = [threading.Thread(target=ask, args=one) for one in ASKED_EVERY.items()]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        done.set()
        for thread in threads:
            thread.join()


def _run() -> int:
    parser = harness.parser(__doc__)
    parser.add_argument(
        "--only", nargs="+", choices=VARIANTS, default=list(VARIANTS), metavar="WHAT"
    )
    harness.add_round_options(parser, 12, 1.0)
    options = parser.parse_args()
    names = list(dict.fromkeys([NOTHING, *options.only]))
    rows = []
    with tempfile.TemporaryDirectory() as place, contextlib.ExitStack() as stack:
        programs = {
            name: stack.enter_context(serving(name, Path(place) / str(number)))
            for number, name in enumerate(names)
        }
        for kind, job in LOADS.items():
            figures: dict[str, list[float]] = {name: [] for name in names}
            for number in range(options.rounds):
                for name in names if number % 2 else reversed(names):
                    cost = cpu_us(programs[name], evolve(job, seconds=options.seconds))
                    figures[name].append(cost)
            rows += [_row(kind, name, figures) for name in names]
            print(f"{kind} is measured", file=sys.stderr)
    print(f"{harness.machine()}; {core.about}")
    print(f"Server CPU per request in us, medians of {options.rounds} rounds side by side.")
    print(harness.table(["load", "observed by", "us", "ratio", "its quartiles"], rows))
    return 0


def _row(kind: str, name: str, figures: dict[str, list[float]]) -> list[object]:
    ratios = [new / old for old, new in zip(figures[NOTHING], figures[name], strict=True)]
    low, _, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else [ratios[0]] * 3
    median = statistics.median(figures[name])
    return [
        kind,
        name,
        f"{median:.2f}",
        f"{statistics.median(ratios):.2f}",
        f"{low:.2f} to {high:.2f}",
    ]


if __name__ == "__main__":
    harness.main(_run)
