"""The wall clock steps by days; what a server times must not notice."""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from linepool.testing import Peer
from tests.servers import ServerProcess
from tests.torture.experiments.generator import Plan
from tests.torture.experiments.ground import APP, WORKERS, Ground

_DAY = 24 * 3600
_STEPS = (_DAY, -_DAY, 3650 * _DAY, -3650 * _DAY, 3600, -3600, 30 * _DAY, 0)
_BETWEEN = 40  # requests between two steps
_LIMIT = 1.5  # seconds
_SOURCE = Path(__file__).with_name("clock_shift.c")

Step = Callable[[int], None]


def clock_steps(ground: Ground) -> None:
    """T15: the wall clock steps to and fro by up to ten years, while requests run, wait and hang."""
    steps = _STEPS[: 4 if ground.size.name == "small" else len(_STEPS)] * ground.size.pick(1, 5)
    load = ground.load()
    with _clock(ground) as (environment, step):
        server = ground.serve(
            *("--request-timeout", str(_LIMIT)),
            target=APP.with_name("patient_app.py"),
            environment=environment,
        )
        ground.look(server)
        load.start(Plan(address=server.address, clients=6, seed=ground.report.seed))
        with ground.parked(server, 10), server.connect() as patient:
            number = ground.next_number() + 10**8
            patient.send(b"AWAIT %d steps 600\n" % number)
            server.until(lambda state: state["waiters"]["requests"] == 1)
            wrong = sum(not _is_seen(ground, server, step, seconds) for seconds in steps)
            early = _hang_across_a_step(ground, server, step)
            _kill_and_reload(ground, server)
            assert server.ask("PUT steps:1") == "1"
            woken = patient.line()
    requests = load.finish()
    ground.account(requests)
    report = ground.report
    report.check("steps that no handler has seen", wrong)
    report.check("requests that hung and ended early", early)
    report.check("requests that waited and were not woken by what came", int(woken[-2:] != " 1"))
    report.check(
        "requests that were ended for their time", server.status()["counters"]["timeouts"], 1
    )
    ground.innocent(server, len(ground.kills))
    ground.look_again(server)
    report.kills = len(steps) + 1


@contextlib.contextmanager
def _clock(ground: Ground) -> Iterator[tuple[dict[str, str], Step]]:
    """Give the environment of a server whose wall clock steps, and the function that steps it."""
    library, file = ground.directory / "clock_shift.so", ground.directory / "clock_shift"
    command = [
        "cc",
        "-shared",
        "-fPIC",
        "-O1",
        "-Wall",
        "-Werror",
        str(_SOURCE),
        "-o",
        str(library),
    ]
    subprocess.run(command, check=True)
    file.write_bytes(bytes(mmap.PAGESIZE))
    descriptor = os.open(file, os.O_RDWR)
    with mmap.mmap(descriptor, mmap.PAGESIZE) as page:
        os.close(descriptor)

        def step(seconds: int) -> None:
            page[:8] = struct.pack("l", seconds)

        # PYTHON...: so the server is not forked from a process that runs already.
        variables = {
            "LD_PRELOAD": str(library),
            "CLOCK_SHIFT": str(file),
            "PYTHONNODEBUGRANGES": "1",
        }
        yield variables, step


def _is_seen(ground: Ground, server: ServerProcess, step: Step, seconds: int) -> bool:
    """Step the clock to so many seconds from the true time; return whether a handler sees that."""
    step(seconds)
    ground.await_requests(_BETWEEN)
    shown = float(server.ask("CLOCK")) - time.time()
    return abs(shown - seconds) < _DAY / 48


def _hang_across_a_step(ground: Ground, server: ServerProcess, step: Step) -> int:
    """Have a request hang while the clock steps; return 1 if it ended before its time."""
    began = time.monotonic()
    with server.connect() as peer:
        peer.send(b"SLEEP\n")
        server.until(lambda state: any(one["command"] == "SLEEP" for one in state["workers"]))
        step(_DAY)
        ground.await_requests(_BETWEEN)
        step(-_DAY)
        is_error = _line(peer).startswith("SERVER_ERROR")
    ground.report.check("requests that hung and got no error", int(not is_error))
    return int(time.monotonic() - began < _LIMIT)


def _line(peer: Peer) -> str:
    with contextlib.suppress(OSError):
        return peer.line()
    return ""


def _kill_and_reload(ground: Ground, server: ServerProcess) -> None:
    while not ground.kill(server, ground.rng.choice(server.pids())):
        pass
    ground.until_whole(server, WORKERS + 1)
    if ground.size.name != "small":
        server.order("RELOAD")
    ground.await_requests(_BETWEEN)
