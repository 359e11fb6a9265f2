"""Send a million pipelined requests from a file through netcat, and check every reply.

The file holds ``ADD i i+1`` for each i. The same file goes, in turn, to ``linepool run
examples/sums.py`` and to the smallest possible server on asyncio streams; the ratio tells more than
either time, because this depends on the machine. CPU is what the server used, all its processes.
"""

from __future__ import annotations

import contextlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import harness
from attrs import frozen

_NC_LIMIT = 300.0  # seconds


@frozen
class Peer:
    """A server that answers ADD."""

    name: str
    pid: int
    port: int


@frozen
class Measure:
    """One passage of the file."""

    seconds: float
    cpu_seconds: float


@contextlib.contextmanager
def _asyncio_server(directory: Path) -> Iterator[Peer]:
    script = harness.TARGETS / "asyncio_sums.py"
    program = harness.Program([sys.executable, str(script)], directory / "asyncio.log")
    try:
        line = harness.until("asyncio listens", lambda: program.said("listening on "))
        yield Peer("asyncio streams", program.pid, int(line.rpartition(":")[2]))
    finally:
        program.stop()


@contextlib.contextmanager
def _linepool_server(directory: Path) -> Iterator[Peer]:
    target = harness.EXAMPLES / "sums.py"
    with harness.serving(target, "--workers", "4", directory=directory) as server:
        yield Peer("linepool", server.pid, server.port)


def _write_requests(path: Path, count: int) -> None:
    with path.open("w") as file:
        file.writelines(f"ADD {i} {i + 1}\n" for i in range(count))


def _send(peer: Peer, requests: Path, replies: Path) -> Measure:
    before = harness.cpu_seconds(peer.pid)
    began = time.monotonic()
    with requests.open("rb") as source, replies.open("wb") as sink:
        subprocess.run(
            ["nc", "-N", "127.0.0.1", str(peer.port)],
            stdin=source,
            stdout=sink,
            check=True,
            timeout=_NC_LIMIT,
        )
    seconds = time.monotonic() - began
    return Measure(seconds, harness.cpu_seconds(peer.pid) - before)


def _check(replies: Path, count: int) -> None:
    """Raise BenchmarkError unless there is exactly one right reply for each request, in their order."""
    number = 0
    with replies.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line != b"%d\n" % (2 * number - 1):
                raise harness.BenchmarkError(f"reply {number} is {line!r}, not {2 * number - 1}")
    if number != count:
        raise harness.BenchmarkError(f"{number} replies to {count} requests")


def _run() -> int:
    parser = harness.parser(__doc__)
    parser.add_argument("--requests", type=int, default=1_000_000, help="default: %(default)s")
    parser.add_argument(
        "--rounds", type=harness.at_least_one, default=3, help="per server; default: %(default)s"
    )
    options = parser.parse_args()
    if not shutil.which("nc"):
        raise harness.BenchmarkError("nc is missing (Debian: netcat-openbsd)")
    count = options.requests
    servers: list[Callable[[Path], contextlib.AbstractContextManager[Peer]]]
    servers = [_linepool_server, _asyncio_server]
    measures: dict[str, list[Measure]] = {}
    with tempfile.TemporaryDirectory(prefix="linepool-bench-") as name:
        directory = Path(name)
        requests, replies = directory / "requests", directory / "replies"
        _write_requests(requests, count)
        for _ in range(options.rounds):
            for server in servers:
                with server(directory) as peer:
                    measure = _send(peer, requests, replies)
                _check(replies, count)
                measures.setdefault(peer.name, []).append(measure)
    _print(measures, count, options.rounds)
    return 0


def _print(measures: dict[str, list[Measure]], count: int, rounds: int) -> None:
    rows = []
    yardstick = statistics.median(one.seconds for one in measures["asyncio streams"])
    for name, list_ in measures.items():
        seconds = statistics.median(one.seconds for one in list_)
        cpu = statistics.median(one.cpu_seconds for one in list_)
        rows.append(
            (
                name,
                f"{seconds:.2f}",
                f"{min(one.seconds for one in list_):.2f}",
                f"{count / seconds:,.0f}",
                f"{cpu / count * 1e6:.2f}",
                f"{yardstick / seconds:.2f}",
            )
        )
    print(f"{count:,} requests through nc -N, {rounds} rounds each; {harness.machine()}")
    print("Every reply was right and in order.\n")
    print(
        harness.table(
            ["server", "s (median)", "s (best)", "requests/s", "CPU µs/request", "speed ratio"],
            rows,
        )
    )


if __name__ == "__main__":
    harness.main(_run)
