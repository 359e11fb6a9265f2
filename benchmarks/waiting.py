"""Requests that wait without a worker, beside Redis: memory, CPU while nothing happens, wake-ups.

Clients wait in BLPOP: at a linepool app with 2 workers whose lists are in shared memory, and at redis-server.
In each round each server has each load for a moment, in turn. "to Redis" is the ratio in the same round.
Latency is from the pusher's send to the waiting client's receive, in one process. Memory is that of all
processes of a server (PSS), per request that waits.

    python -m benchmarks.waiting
    python -m benchmarks.waiting --short
"""

from __future__ import annotations

import contextlib
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks import harness, meter
from benchmarks.blocked_clients import Clients

LINEPOOL, REDIS = "linepool", "redis-server"
_APP = harness.TARGETS / "blocking_lists.py"
_RATE = 500.0  # wake-ups per second
_BUSY_WAITERS, _WINDOW = 32, 16  # at full speed: clients that wait, and items on their way
_PUSHERS = 8
_SETTLE = 3.0  # seconds, at most
_ROOM = 256  # descriptors for other things

Figure = tuple[str, float]
"""A name with its unit, and a value."""


class Contender:
    """A server."""

    def __init__(self, name: str, pid: int, port: int) -> None:
        self.name = name
        self.pid = pid
        self.port = port

    def cpu_us(self, action: Callable[[], int]) -> tuple[int, float]:
        """Return what an action returns, a number, and the server's processor time per one, in us."""
        before = meter.cpu_seconds(self.pid)
        count = action()
        return count, (meter.cpu_seconds(self.pid) - before) / max(count, 1) * 1e6


@contextlib.contextmanager
def contenders(place: Path, room: int) -> Iterator[list[Contender]]:
    """Start the servers."""
    with contextlib.ExitStack() as stack:
        options = ["--workers", "2", "--max-connections", str(room), "--idle-timeout", "3600"]
        server = stack.enter_context(harness.serving(_APP, *options, directory=place))
        port = harness.free_port()
        command = ["redis-server", "--port", str(port), "--save", "", "--bind", "127.0.0.1"]
        redis = harness.Program([*command, "--maxclients", str(room)], place / "redis.log", place)
        stack.callback(redis.stop)
        harness.until("Redis is ready", lambda: redis.said("Ready to accept"))
        yield [
            Contender(LINEPOOL, server.pid, server.port),
            Contender(REDIS, redis.pid, port),
        ]


def pushes(one: Contender, seconds: float, case: str) -> list[Figure]:
    """Measure RPUSH to a list for which nobody waits."""
    with contextlib.closing(Clients(one.port, "pushed", 0, _PUSHERS)) as clients:
        began = time.perf_counter()
        count, cpu_us = one.cpu_us(lambda: clients.pushes(seconds))
        rate = count / (time.perf_counter() - began)
    return [(f"RPUSH {case}, CPU us", cpu_us), (f"RPUSH {case}, requests/s", rate)]


def wakes(one: Contender, seconds: float, waiting: int) -> list[Figure]:
    """Measure the latency of wake-ups at a fixed rate, with so many clients that wait."""
    with contextlib.closing(Clients(one.port, f"list{waiting}", waiting, _PUSHERS)) as clients:
        meter.settle(one.pid, _SETTLE)
        late = sorted(clients.wakes(seconds, rate=_RATE))
    p50, p99 = (late[int(len(late) * part)] * 1e6 for part in (0.5, 0.99))
    what = f"{_RATE:g} wake-ups/s, {waiting:,} waiting"
    return [(f"{what}, p50 us", p50), (f"{what}, p99 us", p99)]


def full_speed(one: Contender, seconds: float) -> list[Figure]:
    """Measure how many wake-ups a server manages."""
    with contextlib.closing(Clients(one.port, "fast", _BUSY_WAITERS, _PUSHERS)) as clients:
        meter.settle(one.pid, _SETTLE)
        began = time.perf_counter()
        count, cpu_us = one.cpu_us(lambda: len(clients.wakes(seconds, window=_WINDOW)))
        rate = count / (time.perf_counter() - began)
    what = f"{_BUSY_WAITERS} waiting"
    return [
        (f"full speed, {what}, wake-ups/s", rate),
        (f"full speed, {what}, CPU us/wake-up", cpu_us),
    ]


def many(one: Contender, seconds: float, count: int) -> list[Figure]:
    """Measure memory per client that waits, and the processor time while nothing happens."""
    meter.settle(one.pid, _SETTLE)
    before = meter.memory_mb(one.pid)
    with contextlib.closing(Clients(one.port, "many", count)):
        meter.settle(one.pid, 2 * _SETTLE)
        memory = (meter.memory_mb(one.pid) - before) * 1e6 / count
        cpu = meter.cpu_seconds(one.pid)
        time.sleep(seconds)
        cpu = meter.cpu_seconds(one.pid) - cpu
    meter.settle(one.pid, _SETTLE)
    return [
        (f"{count:,} waiting, bytes each", memory),
        (f"CPU ms in {seconds:g} s of silence", cpu * 1e3),
    ]


def _run() -> int:
    parser = harness.parser(__doc__)
    parser.add_argument("--waiting", type=harness.at_least_one, default=10_000, help="clients")
    parser.add_argument("--silence", type=harness.seconds, default=10.0, help="seconds of it")
    parser.add_argument("--short", action="store_true", help="1,000 clients and one round, 15 s")
    harness.add_round_options(parser, 5, 2.0)
    options = parser.parse_args()
    if options.short:
        options.waiting, options.silence, options.rounds, options.seconds = 1000, 2.0, 1, 1.0
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if options.waiting + _ROOM > most:
        raise harness.BenchmarkError(f"{options.waiting} clients need more than {most} descriptors")
    found: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as name:
        with contenders(Path(name), options.waiting + _ROOM) as servers:
            _measure(servers, options.seconds, options.rounds, found)
        # In new processes: the memory of those before is in use already.
        with contenders(Path(name), options.waiting + _ROOM) as servers:
            for one in servers:
                _note(found, one, many(one, options.silence, options.waiting))
    print(f"{harness.machine()}; medians of {options.rounds} rounds of {options.seconds:g} s\n")
    print(harness.table(["", LINEPOOL, REDIS, "to Redis"], _rows(found)))
    return 0


def _measure(
    servers: list[Contender],
    seconds: float,
    rounds: int,
    found: dict[str, dict[str, list[float]]],
) -> None:
    for one in servers:
        pushes(one, 0.2, "")  # caches
        _note(found, one, pushes(one, seconds, "before any request has waited"))
    for number in range(rounds):
        for one in servers if number % 2 else reversed(servers):
            _note(found, one, wakes(one, seconds, 1))
            _note(found, one, wakes(one, seconds, 1000))
            _note(found, one, full_speed(one, seconds))
            with contextlib.closing(Clients(one.port, "other", 100)):
                meter.settle(one.pid, _SETTLE)
                _note(found, one, pushes(one, seconds, "while 100 others wait"))


def _note(found: dict[str, dict[str, list[float]]], one: Contender, figures: list[Figure]) -> None:
    for name, value in figures:
        found.setdefault(name, {}).setdefault(one.name, []).append(value)


def _rows(found: dict[str, dict[str, list[float]]]) -> list[list[object]]:
    rows: list[list[object]] = []
    for name, figures in found.items():
        own, other = figures[LINEPOOL], figures[REDIS]
        ratios = [a / b for a, b in zip(own, other, strict=True) if b]
        ratio = f"{statistics.median(ratios):.2f}" if ratios else "-"
        medians = (f"{statistics.median(values):,.0f}" for values in (own, other))
        rows.append([name, *medians, ratio])
    return rows


if __name__ == "__main__":
    harness.main(_run)
