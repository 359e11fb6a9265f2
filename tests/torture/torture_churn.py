"""Kill, recycle and resize workers under load while many connections are parked; account for it all.

Each victim is stopped (SIGSTOP) before it is killed, and the kernel is asked which connections it
holds: only requests on these may be lost. The journals of the workers say which requests began and
ended. The idle connections send one request each at the end, all at once, and all must be answered.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.torture import proc
from tests.torture.account import Account, Journals, Kill, broken, how_lost
from tests.torture.clients import busy_clients, open_idle, query_idle
from tests.torture.table import show_table

_APP = str(Path(__file__).with_name("journal_app.py"))
_WORKERS = 4
_BUSY = 64  # clients
_IDLE = 1000  # connections
_MAX_REQUESTS = 250  # of a worker, until it is recycled
_KILLS_PER_SECOND = 6.0
_KILLS_PER_RESIZE = 5
_KILLS_PER_RECYCLE = 2
_RECYCLE_LIMIT = 60.0  # seconds after the kills until enough workers were recycled
_LEFT_LIMIT = 10.0  # seconds until the server has closed what its clients have closed


@pytest.mark.scheme("shared", "dispatch")
def test_only_requests_on_the_connections_of_a_killed_worker_are_lost(
    launch, tmp_path, seconds, scheme
):
    journals = tmp_path / "journals"
    journals.mkdir()
    options = ["--workers", str(_WORKERS), "--max-requests", str(_MAX_REQUESTS)]
    options += ["--poison-deaths", "0"]  # the command is not to blame for the kills
    server = launch(_APP, *options, environment={"JOURNALS": str(journals)})
    port = int(server.addresses[0].rpartition(":")[2])
    idle = open_idle(port, _IDLE)
    idle_ports = frozenset(sock.getsockname()[1] for sock in idle)
    state = server.until(lambda state: state["connections"]["parked"] >= _IDLE)
    parked = state["connections"]["parked"]
    resizes = max(1, round(seconds * _KILLS_PER_SECOND / _KILLS_PER_RESIZE))
    with busy_clients(port, _BUSY) as clients:
        server.until(lambda _: any(path.stat().st_size for path in journals.iterdir()))
        kills = _churn(server, port, resizes * _KILLS_PER_RESIZE)
        busy = clients.finish()
    idle_outcomes = query_idle(idle)
    left = _count_left(port)
    state = server.until(lambda state: _is_whole(server, state))
    account = Account(
        busy=busy,
        idle=idle_outcomes,
        idle_ports=idle_ports,
        kills=kills,
        journals=Journals.read(journals),
        counters=state["counters"],
        resizes=resizes,
        parked=parked,
        left=left,
    )
    rows = account.rows()
    print(f"\nScheme {scheme}: {_WORKERS} workers, {_BUSY} busy and {_IDLE} idle connections\n")
    show_table(["", "count", "must be"], rows)
    print(f"\nHow replies were lost: {how_lost(account) or 'none was lost'}.")
    assert not broken(rows), "\n".join(account.details())


def _churn(server: Any, port: int, count: int) -> list[Kill]:
    """Kill ``count`` workers and resize the pool; return when enough workers were recycled too."""
    rng = random.Random(count)
    kills: list[Kill] = []
    sizes = itertools.cycle(_WORKERS + step for step in (2, -1, 1, -2, 0))
    give_up_at = time.monotonic() + 20 + 10 * count / _KILLS_PER_SECOND
    resized = 0
    while len(kills) < count:
        assert time.monotonic() < give_up_at, f"only {len(kills)} workers could be killed"
        if len(kills) >= resized * _KILLS_PER_RESIZE:
            server.order(f"SCALE {next(sizes)}")
            resized += 1
        if kill := _kill_one(server, port, rng):
            kills.append(kill)
        time.sleep(rng.uniform(0.5, 1.5) / _KILLS_PER_SECOND)
    server.order(f"SCALE {_WORKERS}")
    give_up_at = time.monotonic() + _RECYCLE_LIMIT
    while (recycled := server.status()["counters"]["recycled"]) < count // _KILLS_PER_RECYCLE:
        assert time.monotonic() < give_up_at, f"only {recycled} workers were recycled"
        time.sleep(0.05)
    return kills


def _kill_one(server: Any, port: int, rng: random.Random) -> Kill | None:
    """Kill a random worker; None: there is none, or it ended by itself first."""
    workers = server.status()["workers"]
    pids = [worker["pid"] for worker in workers if worker["state"] in ("idle", "busy")]
    if not pids:
        return None
    pid = rng.choice(pids)
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    try:
        if pid not in proc.children(server.process.pid):
            return None
        signal.pidfd_send_signal(pidfd, signal.SIGSTOP)
        server.until(lambda _: proc.has_stopped(pid))
        ports = proc.client_ports(pid, port)
        at = time.monotonic()  # clients may notice the kill before this process runs again
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except (ProcessLookupError, FileNotFoundError):  # it has just ended by itself
        return None
    finally:
        os.close(pidfd)
    return Kill(pid, at, ports)


def _count_left(port: int) -> int:
    """Return how many connections the server still holds when all clients have closed theirs."""
    give_up_at = time.monotonic() + _LEFT_LIMIT
    while (left := proc.count_open(port)) and time.monotonic() < give_up_at:
        time.sleep(0.005)
    return left


def _is_whole(server: Any, state: dict[str, Any]) -> bool:
    """Whether the pool has its size again, and no child is a zombie."""
    tally = state["tally"]
    zombies = any(map(proc.is_zombie, proc.children(server.process.pid)))
    return tally["idle"] == tally["total"] == _WORKERS and not zombies
