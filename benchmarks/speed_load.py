"""The load that speed.py puts on a server, by lineload or redis-benchmark, and what both use."""

from __future__ import annotations

import csv
import resource
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import harness
import load
from attrs import frozen
from harness import find
from speed_meter import Look, look, memory_mb
from speed_servers import Case, Exchange

WARM_UP = 0.3  # seconds
_GRACE = 30.0  # seconds longer than redis-benchmark is meant to take, until it is given up
_PROBE = 20_000  # requests that redis-benchmark sends to warm up
_US_PER_MS = 1000


@frozen
class Outcome:
    """What one run measured.

    Attributes:
        requests: Answered in the measured time.
        p50: Latency in us, as p99.
        errors: Requests that were not answered, and connections that were lost.
        cpu_us: The server's processor time for each request, in us.
        memory_mb: Of all its processes, under load.
        generator: Processors that the load generator used.
        foreign: Processors that everybody else used.
        master: Processors that the server's first process used, which of linepool is the master.
    """

    requests: int
    rps: float
    p50: float
    p99: float
    errors: int
    cpu_us: float
    memory_mb: float
    generator: float
    foreign: float
    master: float


@frozen
class _Told:
    """What a load generator tells of its run, and its own processor time."""

    seconds: float
    requests: int
    rps: float
    p50: float
    p99: float
    errors: int
    cpu_s: float


@frozen
class Job:
    """A server that is up, by its port and its first process, and what to do to it."""

    case: Case
    exchange: Exchange
    port: int
    pid: int
    seconds: float


def measure(job: Job) -> Outcome:
    """Put the load of a case on a server.

    Raises:
        harness.BenchmarkError: A reply was wrong, or none came.
    """
    memory: list[float] = []
    # In the warm-up: it is under load then, and what is measured is not disturbed.
    memory_look = threading.Timer(WARM_UP / 2, lambda: memory.append(memory_mb(job.pid)))
    generate = _redis_benchmark if job.case.kind == "redis" else _lineload
    told, before, after = generate(job, memory_look.start)
    memory_look.join()
    took = after.at - before.at
    # The looks may be late on a busy machine: so what is compared is what was used per second.
    server = (after.server - before.server) / took
    generator = told.cpu_s / told.seconds
    everybody = (after.machine - before.machine - (after.ours - before.ours)) / took
    return Outcome(
        told.requests,
        told.rps,
        told.p50,
        told.p99,
        told.errors,
        server * told.seconds / max(1, told.requests) * 1e6,
        memory[0],
        generator,
        everybody - server - generator,
        (after.first - before.first) / took,
    )


def _lineload(job: Job, begins: Callable[[], None]) -> tuple[_Told, Look, Look]:
    looks: dict[str, Look] = {}

    def on_phase(phase: str) -> None:
        if phase == "load":
            begins()
        else:
            looks[phase] = look(job.pid)

    figures = load.run(job.port, _load(job), on_phase)
    told = _Told(
        figures.seconds,
        figures.answered,
        figures.rps,
        figures.latency.p50,
        figures.latency.p99,
        figures.errors,
        figures.cpu_s,
    )
    return told, looks["measure"], looks["end"]


def _load(job: Job) -> load.Load:
    case, exchange = job.case, job.exchange
    request = reply = prefix = ""
    length = 0
    if not exchange.is_sum:
        request = _escaped(exchange.request)
        if exchange.ends:
            length = len(exchange.once(job.port))
            prefix = _escaped(exchange.reply)
        else:
            reply = _escaped(exchange.reply)
    return load.Load(
        connections=case.connections,
        seconds=job.seconds,
        warm_up=WARM_UP,
        depth=case.depth,
        mode=case.mode,
        rate=case.rate,
        reset=case.mode == "connect",  # else ports in TIME_WAIT slow down the client
        request=request,
        reply=reply,
        reply_bytes=length,
        reply_prefix=prefix,
    )


def _escaped(data: bytes) -> str:
    return data.decode().replace("\\", "\\\\").replace("\r", "\\r").replace("\n", "\\n")


def _redis_benchmark(job: Job, begins: Callable[[], None]) -> tuple[_Told, Look, Look]:
    """It is told a number of requests, not a time: what the warm-up does makes the number."""
    begins()
    warm = _told_by_redis_benchmark(job.case, job.port, _PROBE)
    requests = max(_PROBE, int(warm.rps * job.seconds))
    before = look(job.pid)
    told = _told_by_redis_benchmark(job.case, job.port, requests)
    return told, before, look(job.pid)


def _told_by_redis_benchmark(case: Case, port: int, requests: int) -> _Told:
    command = [find("redis-benchmark"), "-h", "127.0.0.1", "-p", str(port), "-t", "get", "--csv"]
    command += ["-c", str(case.connections), "-P", str(case.depth), "-n", str(requests)]
    began_at = time.monotonic()
    cpu_before = _children_cpu_seconds()
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_GRACE, check=False)
    except subprocess.TimeoutExpired:
        raise harness.BenchmarkError(f"{Path(command[0]).name} did not come to its end") from None
    try:
        (row,) = csv.DictReader(done.stdout.splitlines())
        return _Told(
            time.monotonic() - began_at,
            requests,
            float(row["rps"]),
            float(row["p50_latency_ms"]) * _US_PER_MS,
            float(row["p99_latency_ms"]) * _US_PER_MS,
            0,
            _children_cpu_seconds() - cpu_before,
        )
    except (KeyError, ValueError):
        said = (done.stdout + done.stderr).strip()
        raise harness.BenchmarkError(f"redis-benchmark: {said[-200:]}") from None


def _children_cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
