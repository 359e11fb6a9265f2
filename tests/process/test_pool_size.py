"""The size of the pool: it grows when clients wait, shrinks afterwards, and stays within its bounds."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from linepool.kernel.listeners import Listener
from linepool.kernel.sock_diag import unix_queue
from linepool.master.load import Processors
from linepool.testing import Peer
from tests.conftest import Launch
from tests.servers import Gate, ServerProcess

QUICK = ("--grow-delay", "0.05", "--max-spawn-rate", "1000", "--min-worker-age", "0")
KINDS = {"tcp": "127.0.0.1:0", "unix": "unix:sock"}


@contextlib.contextmanager
def holding(server: ServerProcess, count: int) -> Iterator[list[Peer]]:
    """Give ``count`` clients with a request whose handler waits at the gate."""
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(server.connect()) for _ in range(count)]
        for number, peer in enumerate(peers):
            peer.send(f"HOLD {number}\n".encode())
        yield peers


def answers(peers: list[Peer]) -> list[int]:
    """Return the replies of the clients of ``holding``; each closes, which frees its worker."""
    numbers = []
    for peer in peers:
        numbers.append(int(peer.line()))
        peer.close()
    return numbers


def plans(server: ServerProcess) -> list[tuple[int, int]]:
    """Return the numbers of workers that each plan so far spawned and retired."""
    changes = [int(change) for change in re.findall(r"scaling pool: ([+-]\d+)", server.text)]
    return [(max(0, change), max(0, -change)) for change in changes]


# -- growing and shrinking


@pytest.mark.scheme("accept")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.linux("without TCP_INFO one counts")
def test_after_a_burst_the_pool_is_at_its_maximum_and_then_all_spare_workers_are_retired(
    launch: Launch, gate: Gate, kind
):
    options = ("--workers", "2:10", "--max-spare", "1", "--shrink-window", "0.8", *QUICK)
    server = launch("workshop.py", *options, bind=(KINDS[kind],))

    with holding(server, 16) as peers:
        gate.wait(10)
        full = server.status()
        gate.open(16)
        assert answers(peers) == list(range(16))
    state = server.until(lambda state: state["tally"]["total"] == 2)

    assert full["tally"] == {
        "starting": 0,
        "idle": 0,
        "busy": 10,
        "leaving": 0,
        "total": 10,
        "min": 2,
        "max": 10,
    }
    assert full["listeners"][0]["backlog"] == 6
    assert full["counters"]["spawned"] == 10
    assert state["counters"]["spawned"] == 10
    assert state["counters"]["retired"] == 8
    assert state["counters"]["kills"] == state["counters"]["crashes"] == 0
    server.stop()
    # At once, but for workers that are told late on a busy machine that they are idle.
    retirements = [retired for _, retired in plans(server) if retired]
    assert sum(retirements) == 8
    assert len(retirements) <= 2


def test_each_waiting_client_gets_a_worker(launch: Launch, gate: Gate):
    server = launch("workshop.py", "--workers", "1:32", "--min-spare", "0", *QUICK)

    with holding(server, 7) as peers:
        workers = gate.wait(7)
        state = server.status()
        gate.open(7)
        assert answers(peers) == list(range(7))

    assert len(set(workers)) == 7
    assert state["tally"]["total"] == state["counters"]["spawned"] == 7


def test_min_spare_workers_are_kept_idle(launch: Launch, gate: Gate):
    server = launch("workshop.py", "--workers", "1:8", "--min-spare", "3", *QUICK)
    server.until(lambda state: state["tally"]["idle"] == 3)

    with holding(server, 2) as peers:
        gate.wait(2)
        server.until(lambda state: (state["tally"]["busy"], state["tally"]["idle"]) == (2, 3))
        gate.open(2)
        assert answers(peers) == [0, 1]


def test_a_fixed_pool_neither_grows_nor_shrinks(launch: Launch, gate: Gate):
    options = (
        "--workers",
        "3",
        "--min-spare",
        "0",
        "--max-spare",
        "0",
        "--shrink-window",
        "0.1",
        *QUICK,
    )
    server = launch("workshop.py", *options)
    workers = server.pids()

    with holding(server, 6) as peers:
        first = gate.wait(3)
        gate.open(6)
        assert answers(peers) == list(range(6))
    server.stop()

    assert sorted(first) == sorted(workers)
    assert plans(server) == []


def test_the_bounds_can_be_raised_while_clients_wait(launch: Launch, gate: Gate):
    server = launch("workshop.py", "--workers", "1:2", *QUICK)

    with holding(server, 6) as peers:
        gate.wait(2)
        server.order("SCALE 1:6")
        gate.wait(4)
        assert server.status()["tally"]["busy"] == 6
        gate.open(6)
        assert answers(peers) == list(range(6))


def test_workers_are_not_spawned_faster_than_max_spawn_rate(launch: Launch, gate: Gate):
    rate = ("--grow-delay", "0.05", "--max-spawn-rate", "4")
    server = launch("workshop.py", "--workers", "1:12", "--min-spare", "0", *rate)
    uptime = server.status()["uptime_s"]

    with holding(server, 8) as peers:
        gate.wait(8)
        state = server.status()
        gate.open(8)
        assert answers(peers) == list(range(8))

    # Four at once, the first worker included, and then one every quarter of a second.
    assert state["uptime_s"] >= (8 - 4) / 4 - 0.05
    assert uptime < state["uptime_s"]
    assert state["counters"]["spawned"] == 8


# -- busy processors


def test_clients_that_stay_connected_get_a_worker_each_even_while_the_processors_are_busy(
    tmp_path: Path, launch: Launch
):
    server = launch("stuck_for_cpu.py", "--workers", "1:12", *QUICK)
    enough = tmp_path / "enough"
    with contextlib.ExitStack() as stack:
        burning = [stack.enter_context(server.connect()) for _ in range(os.cpu_count() or 1)]
        for peer in burning:
            peer.send(f"BURN {enough}\n".encode())
        state = server.until(lambda state: state["tally"]["busy"] == len(burning))
        server.until(lambda now: now["uptime_s"] > state["uptime_s"] + 0.3)
        staying = [stack.enter_context(server.connect()) for _ in range(6)]

        assert [peer.ask("ADD 2 3") for peer in staying] == ["5"] * 6

        enough.touch()
        assert [peer.line() for peer in burning] == ["burnt"] * len(burning)


def test_processes_that_keep_all_processors_busy_are_the_bottleneck_and_sleeping_ones_are_not():
    with contextlib.ExitStack() as stack:

        def start(code: str) -> int:
            words = [sys.executable, "-c", f"print(flush=True)\n{code}"]
            process = stack.enter_context(subprocess.Popen(words, stdout=subprocess.PIPE))
            stack.callback(process.kill)
            assert process.stdout is not None
            process.stdout.readline()
            return process.pid

        burning = [start("while True: pass") for _ in range(2 * (os.cpu_count() or 1))]
        sleeping = [start("import time; time.sleep(1000)") for _ in range(2)]

        assert any(answers_of(Processors(), burning))
        assert not any(answers_of(Processors(), sleeping, 2))


def answers_of(processors: Processors, pids: list[int], count: int = 30) -> Iterator[bool]:
    """Yield, every 0.1 s, whether some processes keep all processors busy."""
    processors.are_bottleneck(pids)
    for _ in range(count):
        subprocess.run(["sleep", "0.1"], check=True)
        yield processors.are_bottleneck(pids)


# -- saturation


def test_saturation_is_counted_and_logged_once_with_a_hint(launch: Launch, gate: Gate):
    server = launch("workshop.py", "--workers", "1:2", *QUICK)
    before = server.status()["counters"]["saturated_s"]

    with holding(server, 5) as peers:
        gate.wait(2)
        line = server.wait_for("saturated: ")
        first = server.until(lambda state: state["counters"]["saturated_s"] > 0.2)
        server.until(
            lambda state: state["counters"]["saturated_s"] > first["counters"]["saturated_s"] + 0.2
        )
        gate.open(5)
        assert answers(peers) == list(range(5))
    after = server.until(lambda state: state["tally"]["idle"] == 2)["counters"]["saturated_s"]
    server.stop()

    assert before == 0
    assert re.search(r"saturated: [1-3] connections wait, all 2 workers are ", line)
    assert "raise workers" in line
    assert server.text.count("saturated: ") == 1
    assert after < 5


def test_the_warning_about_saturation_says_that_all_workers_are_stuck(launch: Launch, gate: Gate):
    server = launch("workshop.py", "--workers", "1", *QUICK)

    with holding(server, 2) as peers:
        gate.wait(1)

        assert "all 1 workers are stuck" in server.wait_for("saturated: ")

        gate.open(2)
        assert answers(peers) == [0, 1]


# -- the backlog


@pytest.mark.parametrize("kind", KINDS)
def test_the_backlog_is_what_the_kernel_has_queued(tmp_path: Path, kind):
    with contextlib.ExitStack() as stack:
        if kind == "unix":
            path = str(tmp_path / "sock")
            sock = stack.enter_context(socket.socket(socket.AF_UNIX))
            sock.bind(path)
            listener = Listener(sock, path)
        else:
            sock = stack.enter_context(socket.socket())
            sock.bind(("127.0.0.1", 0))
            listener = Listener(sock)
        sock.listen(8)

        assert listener.queue() == (0, 8)
        for count in range(1, 6):
            peer = stack.enter_context(socket.socket(sock.family))
            peer.connect(sock.getsockname())
            assert listener.queue() == (count, 8)
        for count in reversed(range(5)):
            sock.accept()[0].close()
            assert listener.queue() == (count, 8)


def test_each_unix_listener_has_its_own_backlog(tmp_path: Path):
    with contextlib.ExitStack() as stack:
        listeners = []
        for number in range(5):
            sock = stack.enter_context(socket.socket(socket.AF_UNIX))
            sock.bind(str(tmp_path / str(number)))
            sock.listen(10 + number)
            listeners.append(sock)
            for _ in range(number):
                peer = stack.enter_context(socket.socket(socket.AF_UNIX))
                peer.connect(sock.getsockname())

        assert [unix_queue(sock) for sock in listeners] == [(n, 10 + n) for n in range(5)]
