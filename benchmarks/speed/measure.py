"""Load a server with lineload or redis-benchmark, and measure what both use."""

from __future__ import annotations

import csv
import resource
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

from attrs import frozen

from benchmarks import harness, load
from benchmarks.harness import find
from benchmarks.meter import Sample, memory_mb, sample
from benchmarks.speed.cases import Case
from benchmarks.speed.servers import Exchange

WARM_UP = 0.3  # seconds
_LIMIT = 30.0  # seconds until redis-benchmark is given up
_PROBE = 20_000  # requests of redis-benchmark as a warm-up
_US_PER_MS = 1000
_MS_PER_S = 1000


@frozen
class Outcome:
    """What one run measured.

    Attributes:
        requests: Answered in the measured time.
        p50: Latency in us, as p99 and max.
        errors: Requests without a reply, and lost connections.
        cpu_us: Processor time of the server per request, in us.
        memory_mb: Of all its processes, under load.
        generator: Processors used by the load generator.
        foreign: Processors used by all other processes.
        master: Processors used by the server's first process; that of linepool is the master.
    """

    requests: int
    rps: float
    p50: float
    p99: float
    max: float
    errors: int
    cpu_us: float
    memory_mb: float
    generator: float
    foreign: float
    master: float


@frozen
class _Generated:
    """What a load generator reports, and its own processor time."""

    seconds: float
    requests: int
    rps: float
    p50: float
    p99: float
    max: float
    errors: int
    cpu_s: float


@frozen
class Job:
    """A running server, by its port and its first process, and the load for it."""

    case: Case
    exchange: Exchange
    port: int
    pid: int
    seconds: float


def measure(job: Job) -> Outcome:
    """Load a server.

    Raises:
        harness.BenchmarkError: A reply was wrong, or none came.
    """
    memory: list[float] = []
    # In the warm-up: the server is under load then, and no measurement is disturbed.
    memory_sample = threading.Timer(WARM_UP / 2, lambda: memory.append(memory_mb(job.pid)))
    figures, before, after = generate(job, memory_sample.start)
    memory_sample.join()
    took = after.at - before.at
    # Samples may be late on a busy machine, so the figures are rates between two samples.
    server = (after.server - before.server) / took
    generator = figures.cpu_s / figures.seconds
    total = (after.machine - before.machine - (after.ours - before.ours)) / took
    return Outcome(
        figures.requests,
        figures.rps,
        figures.p50,
        figures.p99,
        figures.max,
        figures.errors,
        server * figures.seconds / max(1, figures.requests) * 1e6,
        memory[0],
        generator,
        total - server - generator,
        (after.first - before.first) / took,
    )


def generate(
    job: Job, on_load: Callable[[], None] = lambda: None
) -> tuple[_Generated, Sample, Sample]:
    """Load a server; return what the load generator reports, with samples at begin and end.

    Args:
        job: The server and the load.
        on_load: Called when the load begins, which is before the measured time.

    Raises:
        harness.BenchmarkError: A reply was wrong, or none came.
    """
    return (_redis_benchmark if job.case.name == "redis" else _lineload)(job, on_load)


def _lineload(job: Job, on_load: Callable[[], None]) -> tuple[_Generated, Sample, Sample]:
    samples: dict[str, Sample] = {}
    blocking = threading.Thread(target=lambda: _blocking(job.case.blocked_ms).once(job.port))

    def on_phase(phase: str) -> None:
        if phase == "load":
            on_load()
            return
        samples[phase] = sample(job.pid)
        if phase == "measure" and job.case.blocked_ms:
            blocking.start()

    found = load.run(job.port, _load(job), on_phase)
    if job.case.blocked_ms:
        blocking.join()
    figures = _Generated(
        found.seconds,
        found.answered,
        found.rps,
        found.latency.p50,
        found.latency.p99,
        found.latency.max,
        found.errors,
        found.cpu_s,
    )
    return figures, samples["measure"], samples["end"]


def _blocking(ms: int) -> Exchange:
    return Exchange(b"SLEEP %d\n" % ms, b"OK\n")


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
        seconds=case.blocked_ms / _MS_PER_S or job.seconds,
        warm_up=WARM_UP,
        depth=case.depth,
        mode=case.mode,
        rate=case.rate,
        reset=case.mode == "connect",  # otherwise ports in TIME_WAIT slow down the client
        request=request,
        reply=reply,
        reply_bytes=length,
        reply_prefix=prefix,
    )


def _escaped(data: bytes) -> str:
    return data.decode().replace("\\", "\\\\").replace("\r", "\\r").replace("\n", "\\n")


def _redis_benchmark(job: Job, on_load: Callable[[], None]) -> tuple[_Generated, Sample, Sample]:
    """Run it for a number of requests, estimated in a warm-up: it takes no duration."""
    on_load()
    warm = _run_redis_benchmark(job.case, job.port, _PROBE)
    requests = max(_PROBE, int(warm.rps * job.seconds))
    before = sample(job.pid)
    figures = _run_redis_benchmark(job.case, job.port, requests)
    return figures, before, sample(job.pid)


def _run_redis_benchmark(case: Case, port: int, requests: int) -> _Generated:
    command = [find("redis-benchmark"), "-h", "127.0.0.1", "-p", str(port), "-t", "get", "--csv"]
    command += ["-c", str(case.connections), "-P", str(case.depth), "-n", str(requests)]
    began_at = time.monotonic()
    cpu_before = _children_cpu_seconds()
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT, check=False)
    except subprocess.TimeoutExpired:
        raise harness.BenchmarkError(
            f"{Path(command[0]).name} did not end within {_LIMIT:g} s"
        ) from None
    try:
        (row,) = csv.DictReader(done.stdout.splitlines())
        return _Generated(
            time.monotonic() - began_at,
            requests,
            float(row["rps"]),
            float(row["p50_latency_ms"]) * _US_PER_MS,
            float(row["p99_latency_ms"]) * _US_PER_MS,
            float(row["max_latency_ms"]) * _US_PER_MS,
            0,
            _children_cpu_seconds() - cpu_before,
        )
    except (KeyError, ValueError):
        said = (done.stdout + done.stderr).strip()
        raise harness.BenchmarkError(f"redis-benchmark: {said[-200:]}") from None


def _children_cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
