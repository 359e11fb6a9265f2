"""Calls per second and client CPU per call of linepool's client, beside a bare socket, redis-py and grpcio.

All servers run side by side, linepool's with one worker; in each round each client runs each case for a
moment, in turn. A ratio is that of calls/s to redis-py's with linepool in the same round. p50 and p99 are of
one call, and of a block of 100 if they are pipelined.

    python -m benchmarks.client
    python -m benchmarks.client --rounds 9 --only "one connection"
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

from attrs import frozen

import linepool
from benchmarks import harness
from benchmarks.targets.client_apps import add

BATCH = 100
TASKS = 1_000
LINEPOOL = "linepool.Client"
REDIS_PY = "redis-py -> linepool"
ONE, PIPELINED, THREADS_16, THREADS_64, ASYNCIO = (
    "one connection",
    f"pipelined by {BATCH}",
    "16 threads",
    "64 threads",
    f"asyncio, {TASKS:,} tasks",
)
CASES = (ONE, PIPELINED, THREADS_16, THREADS_64, ASYNCIO)
_CALLS = 20  # between two looks at the clock


@frozen
class Figure:
    """What a run has shown.

    Attributes:
        rate: Calls per second.
        cpu_us: Processor time of the client per call, in microseconds.
        p50_us: Half of the calls, or of the blocks of a pipeline, took no longer, in microseconds.
        p99_us: 99 of 100 took no longer.
    """

    rate: float
    cpu_us: float
    p50_us: float
    p99_us: float


Run = Callable[[float], int]
"""Makes calls for some seconds; returns how many."""
_took: list[float] = []  # seconds of each call, or block of a pipeline, of the present run


def repeated(calls: Callable[[], object], count: int = 1) -> Run:
    """Return a run that repeats something that makes ``count`` calls."""

    def run(seconds: float) -> int:
        end, done = time.perf_counter() + seconds, 0
        while time.perf_counter() < end:
            for _ in range(max(_CALLS // count, 1)):
                began = time.perf_counter()
                calls()
                _took.append(time.perf_counter() - began)
                done += count
        return done

    return run


def in_threads(run: Run, count: int) -> Run:
    """Return a run in several threads at a time."""

    def run_all(seconds: float) -> int:
        done: list[int] = []
        threads = [threading.Thread(target=lambda: done.append(run(seconds))) for _ in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sum(done)

    return run_all


def in_tasks(call: Callable[[], Awaitable[object]]) -> Callable[[float], Awaitable[int]]:
    """Return what makes calls in many tasks at a time."""

    async def run(seconds: float) -> int:
        end, done = time.perf_counter() + seconds, 0

        async def repeat() -> None:
            nonlocal done
            while (began := time.perf_counter()) < end:
                await call()
                _took.append(time.perf_counter() - began)
                done += 1

        await asyncio.gather(*(repeat() for _ in range(TASKS)))
        return done

    return run


def bare_socket(port: int) -> dict[str, Run]:
    """Return the least that any client does: a send and a receive."""
    sock = socket.create_connection(("127.0.0.1", port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def call() -> None:
        sock.sendall(b"add 2 3\n")
        assert sock.recv(65536) == b"5\n"

    return {ONE: repeated(call)}


def linepool_client(port: int) -> dict[str, Run]:
    """Return the cases of linepool's client."""
    client = linepool.Client(f"127.0.0.1:{port}")
    call = repeated(lambda: client.call(add, 2, 3))

    def pipelined() -> None:
        with client.pipeline() as pipeline:
            pending = [pipeline.call(add, 2, 3) for _ in range(BATCH)]
        assert pending[-1].result() == 5

    def tasks(seconds: float) -> int:
        async def run() -> int:
            async with linepool.AsyncClient(f"127.0.0.1:{port}") as client:
                return await in_tasks(lambda: client.call(add, 2, 3))(seconds)

        return asyncio.run(run())

    return {
        ONE: call,
        PIPELINED: repeated(pipelined, BATCH),
        THREADS_16: in_threads(call, 16),
        THREADS_64: in_threads(call, 64),
        ASYNCIO: tasks,
    }


def redis_py(port: int, *words: object) -> dict[str, Run]:
    """Return the cases of redis-py."""
    import redis

    client = redis.Redis(port=port)
    call = repeated(lambda: client.execute_command(*words))

    def pipelined() -> None:
        pipeline = client.pipeline(transaction=False)
        for _ in range(BATCH):
            pipeline.execute_command(*words)
        pipeline.execute()

    def tasks(seconds: float) -> int:
        async def run() -> int:
            pool = redis.asyncio.BlockingConnectionPool(port=port, max_connections=16)
            async with redis.asyncio.Redis(connection_pool=pool) as client:
                return await in_tasks(lambda: client.execute_command(*words))(seconds)

        return asyncio.run(run())

    return {
        ONE: call,
        PIPELINED: repeated(pipelined, BATCH),
        THREADS_16: in_threads(call, 16),
        THREADS_64: in_threads(call, 64),
        ASYNCIO: tasks,
    }


def grpcio(port: int) -> dict[str, Run]:
    """Return the cases of grpcio."""
    import grpc

    method = grpc.insecure_channel(f"127.0.0.1:{port}").unary_unary("/sums/add")
    call = repeated(lambda: json.loads(method(json.dumps([2, 3]).encode())))

    def tasks(seconds: float) -> int:
        async def run() -> int:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                method = channel.unary_unary("/sums/add")
                return await in_tasks(lambda: method(json.dumps([2, 3]).encode()))(seconds)

        return asyncio.run(run())

    return {
        ONE: call,
        THREADS_16: in_threads(call, 16),
        THREADS_64: in_threads(call, 64),
        ASYNCIO: tasks,
    }


@contextlib.contextmanager
def clients(directory: Path) -> Iterator[dict[str, dict[str, Run]]]:
    """Start the servers; give the cases of each client by its name."""
    targets = f"{harness.TARGETS}/client_apps.py"
    with contextlib.ExitStack() as stack:

        def serve(name: str) -> int:
            place = directory / name
            place.mkdir()
            target = Path(f"{targets}:{name}")
            server = harness.serving(target, "--workers", "1", directory=place)
            return stack.enter_context(server).port

        line = serve("line")
        found = {"bare socket": bare_socket(line), LINEPOOL: linepool_client(line)}
        if not harness.module_missing("redis"):
            found[REDIS_PY] = redis_py(serve("resp"), "ADD", 2, 3)
            if shutil.which("redis-server"):
                port = harness.free_port()
                command = ["redis-server", "--port", str(port), "--save", ""]
                program = harness.Program(command, directory / "redis.log", directory)
                stack.callback(program.stop)
                harness.until("Redis is ready", lambda: program.said("Ready to accept"))
                found["redis-py -> redis-server"] = redis_py(port, "INCRBY", "n", 3)
        if not harness.module_missing("grpc"):
            command = [sys.executable, str(harness.TARGETS / "grpc_add.py")]
            program = harness.Program(command, directory / "grpc.log")
            stack.callback(program.stop)
            said = harness.until("grpcio is ready", lambda: program.said("listening on"))
            found["grpcio"] = grpcio(int(said.rpartition(":")[2]))
        yield found


def measured(run: Run, seconds: float) -> Figure:
    """Return the figures of one run."""
    _took.clear()
    began, cpu = time.perf_counter(), time.process_time()
    calls = run(seconds)
    took, used = time.perf_counter() - began, time.process_time() - cpu
    times = sorted(_took)
    p50, p99 = (times[len(times) * part // 100] * 1e6 for part in (50, 99))
    return Figure(calls / took, used / calls * 1e6, p50, p99)


def _run() -> int:
    parser = harness.parser(__doc__)
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES), metavar="CASE")
    harness.add_round_options(parser, 7, 1.0)
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as place, clients(Path(place)) as found:
        for case in options.only:
            runs = {name: cases[case] for name, cases in found.items() if case in cases}
            figures: dict[str, list[Figure]] = {name: [] for name in runs}
            for run in runs.values():
                run(0.1)  # connections and caches
            for number in range(options.rounds):
                for name in runs if number % 2 else reversed(runs):
                    figures[name].append(measured(runs[name], options.seconds))
            rows += [_row(case, name, figures) for name in runs]
            print(f"{case} is measured", file=sys.stderr)
    print(f"{harness.machine()}; medians of {options.rounds} rounds of {options.seconds:g} s\n")
    columns = ["case", "client", "calls/s", "x redis-py", "CPU us/call", "p50 us", "p99 us"]
    print(harness.table(columns, rows))
    return 0


def _row(case: str, name: str, figures: dict[str, list[Figure]]) -> list[object]:
    own = figures[name]
    ratio = "-"
    if base := figures.get(REDIS_PY):
        ratios = [one.rate / other.rate for one, other in zip(own, base, strict=True)]
        ratio = f"{statistics.median(ratios):.2f}"
    rate, *others = (
        statistics.median(getattr(figure, name) for figure in own)
        for name in ("rate", "cpu_us", "p50_us", "p99_us")
    )
    return [case, name, f"{rate:,.0f}", ratio, *(f"{one:,.1f}" for one in others)]


if __name__ == "__main__":
    harness.main(_run)
