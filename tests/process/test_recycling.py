"""Recycling: workers are replaced for requests, memory or age, and no client notices."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from tests.conftest import Launch
from tests.servers import ServerProcess


@pytest.fixture
def slow(tmp_path: Path) -> Path:
    """Give the stem of the files that make workers slow to boot and to exit."""
    return tmp_path / "slow"


@pytest.fixture
def start(launch: Launch, slow: Path):
    """Start servers whose workers may be slow to boot and to exit."""

    def begin(*options: str) -> ServerProcess:
        environment = {"SLOW": str(slow)}
        return launch("stuck_in_recycling.py", *options, environment=environment)

    return begin


def served_by_each(server: ServerProcess, requests: int) -> list[int]:
    """Send requests one after the other; return how many each worker but the last has served."""
    pids = []
    for _ in range(requests):
        pids.append(server.ask("PID"))
        server.until(lambda state: state["tally"]["idle"] == 1)
    return [pids.count(pid) for pid in dict.fromkeys(pids)][:-1]


def test_each_worker_serves_between_max_requests_and_that_plus_the_jitter(start):
    server = start("--workers", "1", "--max-requests", "5", "--max-requests-jitter", "1")

    served = served_by_each(server, 100)

    assert set(served) <= set(range(5, 11))
    assert len(set(served)) > 1
    state = server.until(lambda state: state["tally"]["total"] == 1)
    recycled = state["counters"]["recycled"]
    assert recycled - len(served) in (0, 1)
    assert (state["counters"]["crashes"], state["counters"]["kills"]) == (0, 0)
    server.stop()
    assert sum("worker recycled pid=" in line for line in server.log) == recycled


def test_without_jitter_each_worker_serves_exactly_max_requests(start):
    server = start("--workers", "1", "--max-requests", "7", "--max-requests-jitter", "0")

    assert served_by_each(server, 36) == [7] * 5


def test_at_most_a_third_of_the_pool_is_recycled_at_once(start, slow: Path):
    server = start("--workers", "6", "--max-requests", "1", "--max-requests-jitter", "0")
    Path(f"{slow}.to-boot").touch()

    for _ in range(100):
        assert server.ask("PID")

    state = server.until(
        lambda state: state["tally"]["starting"] == 2 and not state["tally"]["leaving"]
    )
    assert state["tally"]["total"] == 6
    assert state["counters"]["recycled"] == 2
    Path(f"{slow}.to-boot").unlink()
    server.until(lambda state: state["tally"]["idle"] == 6)


@pytest.mark.scheme("accept")
def test_recycling_under_load_loses_no_connection_and_no_reply(start):
    server = start("--workers", "4", "--max-requests", "10", "--max-requests-jitter", "1")
    enough = threading.Event()
    replies: list[list[str]] = []

    def ask_until_enough() -> None:
        while not enough.is_set():
            with server.connect() as peer:
                replies.append([peer.ask("PID") for _ in range(1 + len(replies) % 3)])

    clients = [threading.Thread(target=ask_until_enough) for _ in range(4)]
    for client in clients:
        client.start()
    server.until(lambda state: state["counters"]["recycled"] >= 20)
    enough.set()
    for client in clients:
        client.join()

    assert all(len(set(pids)) == 1 and pids[0].isdigit() for pids in replies)
    state = server.until(lambda state: state["tally"]["idle"] == 4)
    assert (state["counters"]["crashes"], state["counters"]["kills"]) == (0, 0)
    assert state["counters"]["connections"] == len(replies)
    assert state["counters"]["requests"] == sum(map(len, replies))


@pytest.mark.scheme("accept")
def test_a_connection_outlives_max_requests_of_its_worker(start):
    server = start("--workers", "2", "--max-requests", "5")
    with server.connect() as peer:
        worker = peer.ask("PID")

        assert {peer.ask("PID") for _ in range(50)} == {worker}

    assert int(worker) in server.pids() or server.wait_for(f"worker recycled pid={worker}")


@pytest.mark.scheme("accept")
def test_a_client_that_stays_connected_does_not_block_the_recycling_of_other_workers(start):
    server = start("--workers", "3", "--max-requests", "5")
    held = [server.connect() for _ in range(3)]
    first = str(server.pids()[0])  # which gets the first permit
    pids = [peer.ask("PID") for peer in held]
    for peer, worker in zip(held, pids, strict=True):
        if worker != first:
            peer.close()

    server.until(
        lambda state: (
            state["counters"]["recycled"] >= 2 or not all(server.ask("PID") for _ in range(20))
        )
    )
    stays = held[pids.index(first)]
    assert stays.ask("PID") == first
    stays.close()


@pytest.mark.scheme("accept")
def test_a_worker_that_uses_too_much_memory_is_replaced_when_its_client_has_left(start):
    server = start("--workers", "2", "--max-rss-mb", "100")
    with server.connect() as peer:
        large = int(peer.ask("USE 100"))

        assert f"pid={large}" in server.wait_for("worker recycled")

        state = server.until(lambda state: state["tally"]["idle"] == 2)
        assert state["tally"]["leaving"] == 1
        assert int(peer.ask("PID")) == large
    server.until_gone(large)
    assert server.status()["counters"]["recycled"] == 1


def test_workers_that_are_too_old_are_replaced_a_third_at_a_time(start):
    server = start("--workers", "3", "--max-age", "0.1", "--max-requests-jitter", "0")
    first = set(server.pids())

    state = server.until(lambda state: state["counters"]["recycled"])

    assert state["counters"]["recycled"] == 1
    state = server.until(lambda state: state["tally"]["total"] == state["tally"]["idle"])
    assert len({worker["pid"] for worker in state["workers"]} & first) == 2


@pytest.mark.scheme("accept")
def test_a_connection_to_a_recycled_worker_is_closed_after_the_graceful_timeout(start):
    limits = ("--max-age", "0.1", "--graceful-timeout", "0.5")
    server = start("--workers", "1", *limits)
    with server.connect() as peer:
        worker = peer.ask("PID")
        server.wait_for(f"worker recycled pid={worker}")
        assert peer.ask("PID") == worker

        assert peer.line() == ""


def test_a_recycled_worker_that_does_not_exit_is_killed(start, slow: Path):
    limits = ("--max-requests", "2", "--graceful-timeout", "0.3")
    server = start("--workers", "2", *limits)
    Path(f"{slow}.to-exit").touch()
    server.until(lambda state: state["tally"]["leaving"] or not server.ask("PID"))
    stuck = server.wait_for("does not exit").split()[0]

    assert f"pid={stuck} " in server.wait_for("worker killed")
