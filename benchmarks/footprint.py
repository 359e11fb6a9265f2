"""Measure the memory of an idle worker and the cost of the import, beside gunicorn.

Both servers preload a trivial app and have four sync workers. PSS counts a page that n processes share
as 1/n; private memory is what one more worker adds. Both are averages over the workers, from
smaps_rollup (proc(5)), before the first request and after 1,000 requests.

The cost of an import is the minimum of several runs, each in a fresh interpreter, and the number of
modules that it adds to those of the bare interpreter. Bytecode is cached for both.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from attrs import frozen

from benchmarks import harness

_WORKERS = 4
_REQUESTS = 1000
_IMPORTS = ("linepool", "linepool.cli", "gunicorn", "gunicorn.app.wsgiapp")
_IMPORT = """\
import sys, time
before = set(sys.modules)
began = time.perf_counter()
import {module}
print((time.perf_counter() - began) * 1000, len(set(sys.modules) - before))
"""


@frozen
class Peer:
    """A server, the pids of its master and workers, and a function that sends one request."""

    name: str
    pid: int
    workers: list[int]
    ask: Callable[[], None]


@frozen
class Memory:
    """The memory of a process in KiB."""

    pss: int
    private: int
    resident: int


def _memory(pid: int) -> Memory:
    sizes: dict[str, int] = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, size, *_ = line.split()
        sizes[name.rstrip(":")] = int(size)
    return Memory(sizes["Pss"], sizes["Private_Clean"] + sizes["Private_Dirty"], sizes["Rss"])


@contextlib.contextmanager
def _linepool(directory: Path) -> Iterator[Peer]:
    target = harness.EXAMPLES / "sums.py"
    with harness.serving(target, "--workers", str(_WORKERS), directory=directory) as server:

        def ask() -> None:
            with server.connect() as sock, sock.makefile("rb") as file:
                sock.sendall(b"ADD 2 3\n")
                assert file.readline() == b"5\n"

        yield Peer("linepool", server.pid, server.workers(), ask)


@contextlib.contextmanager
def _gunicorn(directory: Path) -> Iterator[Peer]:
    arguments = [sys.executable, "-m", "gunicorn", "--preload", "--worker-class", "sync"]
    arguments += ["--workers", str(_WORKERS), "--bind", "127.0.0.1:0"]
    arguments += ["--chdir", str(harness.TARGETS), "wsgi_app:application"]
    program = harness.Program(arguments, directory / "gunicorn.log", cwd=directory)
    try:
        line = harness.until("gunicorn listens", lambda: program.said("Listening at: "))
        port = int(line.split("127.0.0.1:")[1].split()[0])
        harness.until(
            "gunicorn's workers are up",
            lambda: program.log.read_text().count("Booting worker") >= _WORKERS,
        )

        def ask() -> None:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            with contextlib.closing(connection):
                connection.request("GET", "/add?a=2&b=3")
                assert connection.getresponse().read() == b"5\n"

        yield Peer("gunicorn", program.pid, harness.children(program.pid), ask)
    finally:
        program.stop()


def _row(peer: Peer, when: str) -> tuple[str, ...]:
    workers = [_memory(pid) for pid in peer.workers]
    master = _memory(peer.pid)
    every = [master, *(_memory(pid) for pid in harness.children(peer.pid))]
    return (
        f"{peer.name}, {when}",
        _mib(statistics.mean(one.pss for one in workers)),
        _mib(statistics.mean(one.private for one in workers)),
        _mib(statistics.mean(one.resident for one in workers)),
        _mib(master.pss),
        _mib(sum(one.pss for one in every)),
    )


def _mib(kib: float) -> str:
    return f"{kib / 1024:.2f}"


def _cache_bytecode(directory: Path) -> None:
    """Cache all bytecode in a directory, whatever the environment says."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPYCACHEPREFIX"] = str(directory / "bytecode")


def _import_cost(module: str, runs: int) -> tuple[float, int]:
    """Return the minimum in milliseconds, and the number of modules."""
    costs = []
    for _ in range(runs):
        done = subprocess.run(
            [sys.executable, "-c", _IMPORT.format(module=module)],
            capture_output=True,
            text=True,
            check=True,
        )
        milliseconds, modules = done.stdout.split()
        costs.append((float(milliseconds), int(modules)))
    return min(costs)


def _run() -> int:
    parser = harness.parser(__doc__)
    parser.add_argument("--runs", type=int, default=15, help="imports; default: %(default)s")
    options = parser.parse_args()
    if harness.module_missing("gunicorn"):
        raise harness.BenchmarkError("gunicorn is not installed (PyPI: gunicorn)")
    rows = []
    with tempfile.TemporaryDirectory(prefix="linepool-bench-") as name:
        _cache_bytecode(Path(name))
        costs = {module: _import_cost(module, options.runs) for module in _IMPORTS}
        for serving in (_linepool, _gunicorn):
            with serving(Path(name)) as peer:
                peer.ask()  # by now every worker has started, or is about to
                rows.append(_row(peer, "fresh"))
                for _ in range(_REQUESTS):
                    peer.ask()
                rows.append(_row(peer, f"after {_REQUESTS} requests"))
    print(f"{_WORKERS} idle workers, MiB; {harness.machine()}\n")
    headings = ["", "worker PSS", "worker private", "worker RSS", "master PSS", "whole tree PSS"]
    print(harness.table(headings, rows))
    rows = [
        (f"import {module}", f"{milliseconds:.1f}", str(modules))
        for module, (milliseconds, modules) in costs.items()
    ]
    print()
    print(harness.table([f"minimum of {options.runs} runs", "ms", "modules"], rows))
    return 0


if __name__ == "__main__":
    harness.main(_run)
