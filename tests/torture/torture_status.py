"""How long ``STATUS`` takes while the pool is saturated: all workers busy, and more clients waiting.

"used" and "waited" are the processor time of the master per question, and the time that it waited for a
processor. Each question is asked on a connection of its own, as ``linepool status`` does; the times include
the client's.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from linepool.operate import remote
from linepool.testing import Peer
from tests.conftest import Launch
from tests.servers import ServerProcess
from tests.torture.table import show_table

_APP = str(Path(__file__).with_name("busy_app.py"))
_QUESTIONS = 200
_WAITING = 200  # connections

_CASES = {
    # workers, the scheme, the request of all clients
    "16 workers that sleep": ("16", "shared", b"SLEEP\n"),
    "16 workers that sleep, dispatch": ("16", "dispatch", b"SLEEP\n"),
    "16 workers that sleep, accept": ("16", "accept", b"SLEEP\n"),
    "200 workers that sleep": ("200", "shared", b"SLEEP\n"),
    "8 workers that compute": ("8", "shared", b"COMPUTE\n"),
    "4 workers, short requests": ("4", "shared", b"SHORT\n" * 200_000),
}


@contextlib.contextmanager
def _saturated(server: ServerProcess, request: bytes, workers: int) -> Iterator[None]:
    """Have all workers busy, and clients waiting."""
    with contextlib.ExitStack() as stack:
        for _ in range(workers + _WAITING):
            peer = stack.enter_context(Peer(server.address))
            peer.socket.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                peer.socket.send(request)
        server.until(lambda state: state["tally"]["busy"] == state["tally"]["max"])
        yield


def _processor_times(server: ServerProcess) -> tuple[float, float]:
    """Return how long the master has run, and waited for a processor, in ms (proc(5), schedstat)."""
    ran_ns, waited_ns, _ = Path(f"/proc/{server.process.pid}/schedstat").read_text().split()
    return int(ran_ns) / 1e6, int(waited_ns) / 1e6


@pytest.mark.parametrize("case", _CASES)
def test_status_is_answered_while_the_pool_is_saturated(launch: Launch, case: str):
    workers, scheme, request = _CASES[case]
    options = ("--workers", workers, "--backlog", "1000", "--request-timeout", "0")
    server = launch(_APP, *options, "--max-spawn-rate", "1000", scheme=scheme)
    with _saturated(server, request, int(workers)):
        took, state = [], server.status()
        before = _processor_times(server)
        for _ in range(_QUESTIONS):
            begun = time.perf_counter()
            state = remote.status(server.control)
            took.append((time.perf_counter() - begun) * 1000)
            time.sleep(0.01)
        used, waited = (
            (now - then) / _QUESTIONS
            for now, then in zip(_processor_times(server), before, strict=True)
        )
    waiting = state["listeners"][0]["backlog"] + state["connections"]["parked"]
    took.sort()
    figures = [took[len(took) // 2], took[len(took) * 99 // 100], took[-1]]
    show_table(
        ["status, milliseconds", "busy", "waiting", "median", "p99", "max", "used", "waited"],
        [
            [
                *(case, state["tally"]["busy"], waiting),
                *(f"{one:.1f}" for one in (*figures, used, waited)),
            ]
        ],
    )
