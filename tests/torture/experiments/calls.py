"""System calls that fail or are interrupted, as strace(1) has them do it, in each process of the server."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from attrs import frozen

from tests.servers import TIMEOUT, ServerProcess
from tests.torture.experiments.generator import Plan
from tests.torture.experiments.ground import WORKERS, Ground

_BETWEEN = 30  # requests while calls fail
_WAITS = "epoll_wait,epoll_pwait,epoll_pwait2,poll,ppoll,select,pselect6"
_EVERY_THIRD = "1+3"  # to fail each second one may hit the same of two calls again and again
_IDLE_SHARE = 0.05  # of a processor, for a process that has nothing to do
_IDLE_S = 1.0


@frozen
class Fault:
    """What fails.

    Attributes:
        process: "worker" (all of them), "parker", "master" or "loader".
        calls: Names, as for strace.
        error: Its name.
        kills: A worker is killed meanwhile, so that another one must be forked.
    """

    process: str
    calls: str
    error: str
    kills: bool = False


_SMALL = (
    Fault("worker", "accept4", "ECONNABORTED"),
    Fault("worker", f"{_WAITS},recvfrom,recvmsg,read", "EINTR"),
    Fault("worker", "sendto", "EAGAIN"),
    Fault("parker", f"{_WAITS},recvmsg,read", "EINTR"),
    Fault("master", f"{_WAITS},recvmsg,read,waitid", "EINTR", kills=True),
    Fault("loader", f"{_WAITS},recvmsg,read,waitid", "EINTR", kills=True),
)
_MORE = (
    *(
        Fault("worker", "accept4", name)
        for name in ("EMFILE", "ENFILE", "ENOMEM", "ENOBUFS", "EPROTO", "ENETDOWN")
    ),
    Fault("worker", "recvfrom", "EAGAIN"),
    Fault("worker", "sendmsg", "EAGAIN"),
    Fault("worker", "sendmsg,sendto", "EINTR"),
    Fault("parker", "sendmsg", "EAGAIN"),
    Fault("parker", "sendmsg,sendto", "EINTR"),
    *(Fault("parker", "accept4", name) for name in ("EMFILE", "ENFILE", "ECONNABORTED")),
    Fault("master", "sendmsg,sendto,write", "EINTR", kills=True),
    Fault("loader", "clone,clone3,fork,vfork", "EAGAIN", kills=True),
    Fault("loader", "sendmsg,sendto,write", "EINTR", kills=True),
)


def failing_calls(ground: Ground) -> None:
    """T16: every third of some system calls fails, or is interrupted, in each of the processes."""
    faults = _SMALL if ground.size.name == "small" else (*_SMALL, *_MORE) * ground.size.factor
    load = ground.load()
    server = ground.serve("--respawn-backoff", "0.05")
    ground.look(server)
    load.start(Plan(address=server.address, clients=6, each=3, seed=ground.report.seed))
    ground.await_requests(_BETWEEN)
    with ground.parked(server, 10):
        for fault in faults:
            with _failing(ground, server, fault):
                ground.await_requests(_BETWEEN)
                if fault.kills:
                    _kill_one(ground, server)
            ground.until_whole(server, 0)
    requests = load.finish()
    ground.account(requests)
    kills = len(ground.kills)
    ground.report.check("processes that ended", _ended(server, kills))
    ground.report.check("connections refused", load.refused)
    ground.innocent(server, kills)
    ground.look_again(server)
    ground.report.check("processes that are busy with nothing", len(_busy(ground, server)))
    ground.report.kills = len(faults)


def _kill_one(ground: Ground, server: ServerProcess) -> None:
    spawned = server.status()["counters"]["spawned"]
    while not ground.kill(server, ground.rng.choice(server.pids())):
        pass
    ground.until_whole(server, spawned + 1)


@contextlib.contextmanager
def _failing(ground: Ground, server: ServerProcess, fault: Fault) -> Iterator[None]:
    """Have every third of these calls fail until the end of the block."""
    if not shutil.which("strace"):
        pytest.skip("there is no strace")
    pids = [
        one for name, ones in _processes(server).items() if name == fault.process for one in ones
    ]
    inject = f"inject={fault.calls}:error={fault.error}:when={_EVERY_THIRD}"
    words = [word for pid in pids for word in ("-p", str(pid))]
    # A worker has a second thread. What the loader forks must fork in turn, and its first call would fail.
    follow = fault.process == "worker"
    options = ["-f"] if follow else []
    trace = ground.directory / "trace"
    options += ["-e", f"trace={fault.calls}", "-e", inject, "-o", str(trace)]
    command = ["strace", *options, *words]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as tracer:
        assert tracer.stderr is not None
        for _ in pids:
            if "attached" not in (said := tracer.stderr.readline()):
                tracer.wait(TIMEOUT)
                pytest.skip(f"strace may not: {said}")
        try:
            yield
        finally:
            with _stopped(ground, pids, trace, only_first=not follow):
                tracer.terminate()
                tracer.wait(TIMEOUT)


@contextlib.contextmanager
def _stopped(
    ground: Ground, pids: Sequence[int], trace: Path, *, only_first: bool
) -> Iterator[None]:
    """Have traced processes stop until the end of the block; they are in no system call then.

    One that strace leaves within a call that is to fail would see ENOSYS.
    """

    def threads() -> int:
        found = [len(list(path.iterdir())) for path in paths if path.exists()]
        return len(found) if only_first else sum(found)

    paths = [Path(f"/proc/{pid}/task") for pid in pids]
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
    ground.until(
        lambda: trace.read_text().count("--- stopped by SIGSTOP ---") >= threads(),
        "all traced processes have stopped",
    )
    yield
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def _processes(server: ServerProcess) -> dict[str, Sequence[int]]:
    state = server.status()
    named = state["processes"]
    return {
        "master": [server.process.pid],
        "loader": [named["loader"]],
        "parker": [named["parker"]],
        "worker": [one["pid"] for one in state["workers"]],
    }


def _ended(server: ServerProcess, kills: int) -> int:
    """Return how many workers have ended that were not killed and did not leave in order."""
    counters = server.status()["counters"]
    return int(counters["spawned"] - counters["retired"] - counters["recycled"] - WORKERS - kills)


def _busy(ground: Ground, server: ServerProcess) -> list[str]:
    """Return the processes that use a processor though nothing happens, on a busy machine too."""
    clocks = {
        f"{name} {pid}": (~pid << 3) | 2  # clock_getcpuclockid(3)
        for name, pids in _processes(server).items()
        for pid in pids
    }
    began = time.monotonic()
    before = {name: time.clock_gettime(clock) for name, clock in clocks.items()}
    ground.until(lambda: time.monotonic() - began > _IDLE_S, "time passes")
    passed = time.monotonic() - began
    used = {name: time.clock_gettime(clock) - before[name] for name, clock in clocks.items()}
    busy = [name for name, seconds in used.items() if seconds > _IDLE_SHARE * passed]
    ground.report.figures["idle_cpu"] = round(max(used.values()) / passed, 4)
    ground.report.details += [f"{name}: {used[name]:.3f} s of {passed:.3f}" for name in busy]
    return busy
