"""The parker: its descriptors, its death, its stop, idle connections, and the connection limit."""

from __future__ import annotations

import os
import select
import signal
import time
from pathlib import Path

import pytest

from tests.conftest import Launch
from tests.process.connections import (
    PARKING_SCHEMES,
    all_of,
    ask_all,
    clients,
    open_files,
    parker_of,
    until_parked,
)
from tests.servers import TIMEOUT, Gate, ServerProcess, has_ended, library_files

pytestmark = pytest.mark.scheme(*PARKING_SCHEMES)


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """Give the file in which hooks record connections."""
    return tmp_path / "journal"


def recorded(journal: Path, what: str) -> list[str]:
    """Return the ids of the connections for which a kind of hook has run, in order."""
    lines = [line.split() for line in journal.read_text().splitlines()]
    return [name for kind, name, _ in lines if kind == what]


# -- what it holds


@pytest.mark.scheme("dispatch")
def test_the_parker_runs_no_code_of_the_app(launch: Launch, journal: Path):
    options = ("--workers", "2", "--idle-timeout", "0.3")
    server = launch("moving.py", *options, environment={"JOURNAL": str(journal)})
    parker = parker_of(server)
    with clients(server, 10) as peers:
        for peer in peers:
            assert peer.line().startswith("hello ")
        until_parked(server, 10)
        assert not any("journal" in name for name in open_files(parker))
        assert all(f"{journal}.tool" in open_files(pid) for pid in server.pids())

        assert [peer.line() for peer in peers] == [""] * 10
        server.until(lambda _: len(recorded(journal, "disconnect")) == 10)
    assert str(parker) not in journal.read_text().split()


def test_every_parker_holds_only_its_own_descriptors(launch: Launch, scheme):
    server = launch("moving.py", "--workers", "3")
    parker = 0
    for _ in range(2):
        parker = parker_of(server, besides=parker)
        with clients(server, 5) as peers:
            ask_all(peers, "ADD 2 3")
            until_parked(server, 5)
        until_parked(server, 0)

        kinds = [name.partition(":")[0] for name in open_files(parker)]
        # The channels of the master and of each worker, and the listener; the log; the memory of board,
        # listener and the log's limit, with the timer of that; the epoll.
        assert kinds.count("socket") == 5
        assert kinds.count("pipe") == 1
        assert kinds.count("/memfd") == 3
        assert kinds.count("anon_inode") == 2
        assert len(kinds) <= 13 + library_files()
        os.kill(parker, signal.SIGKILL)


# -- its death


def test_a_dead_parker_loses_the_connections_that_it_held_and_is_replaced(launch: Launch):
    server = launch("moving.py", "--workers", "2")
    with clients(server, 20) as parked:
        assert ask_all(parked, "ADD 2 3") == ["5"] * 20
        until_parked(server, 20)
        parker = parker_of(server)

        os.kill(parker, signal.SIGKILL)

        assert [all_of(peer) for peer in parked] == [b""] * 20
        line = server.wait_for("parker died")
        assert "signal=SIGKILL connections=20; starting another one" in line
        parker_of(server, besides=parker)
        with server.connect() as peer:
            assert peer.ask("REMEMBER a") == "OK"
            until_parked(server, 1)
            assert peer.ask("RECALL") == "a"
    assert server.status()["counters"]["dropped"] == 20
    assert server.stop() == 0


@pytest.mark.scheme("shared")
def test_connections_that_workers_hold_outlive_the_parker(launch: Launch):
    server = launch("moving.py", "--workers", "2", "--park-after", "60")
    with clients(server, 6) as peers:
        pinned, *others = peers
        worker = pinned.ask("PIN")
        assert ask_all(others, "NEXT_NUMBER") == ["1"] * 5
        until_parked(server, 0, hot=6)  # a busy worker has handed some to the other one

        os.kill(parker_of(server), signal.SIGKILL)
        server.wait_for("parker died")

        assert pinned.ask("PID") == worker
        assert ask_all(others, "NEXT_NUMBER") == ["2"] * 5
        # The next parker takes the connections that are handed off.
        os.kill(int(worker), signal.SIGTERM)
        assert all_of(pinned) == b""
        assert ask_all(others, "NEXT_NUMBER") == ["3"] * 5


@pytest.mark.scheme("shared")
def test_a_parker_that_dies_repeatedly_is_replaced_with_backoff(launch: Launch):
    server = launch("moving.py", "--workers", "1")
    parker = parker_of(server)
    began_at = time.monotonic()
    for _ in range(3):
        os.kill(parker, signal.SIGKILL)
        parker = parker_of(server, besides=parker)

    assert time.monotonic() - began_at >= 0.1 + 0.15 + 0.225
    assert server.ask("ADD 2 3") == "5"


# -- stopping


def test_a_stop_with_many_parked_clients_ends_soon_and_cleanly(launch: Launch):
    server = launch("moving.py", "--workers", "2")
    with clients(server, 500) as peers:
        assert ask_all(peers, "ADD 2 3") == ["5"] * 500
        until_parked(server, 500)

        server.send(signal.SIGTERM)

        assert {all_of(peer) for peer in peers} == {b""}
        assert server.ended() == 0
    assert "ERROR" not in server.text


def test_a_client_that_waits_for_a_worker_is_served_before_the_server_stops(
    launch: Launch, gate: Gate
):
    server = launch("moving.py", "--workers", "1")
    with clients(server, 10) as peers:
        busy, *waiting = peers
        assert ask_all(peers, "NEXT_NUMBER") == ["1"] * 10
        until_parked(server, 10)
        busy.send(b"HOLD\n")
        gate.wait()
        for peer in waiting:
            peer.send(b"NEXT_NUMBER\n")

        server.send(signal.SIGTERM)
        server.wait_for("stopping")
        gate.open()

        assert all_of(busy) == b"let go\n"
        assert [all_of(peer) for peer in waiting] == [b"2\n"] * 9
    assert server.ended() == 0


@pytest.mark.scheme("shared")
def test_a_stop_in_which_every_process_gets_the_signal_is_graceful_too(launch: Launch, gate: Gate):
    server = launch("moving.py", "--workers", "1")
    with server.connect() as busy, server.connect() as waiting:
        assert ask_all([busy, waiting], "NEXT_NUMBER") == ["1", "1"]
        until_parked(server, 2)
        parker, worker = parker_of(server), server.pids()[0]
        busy.send(b"HOLD\n")
        gate.wait()
        waiting.send(b"NEXT_NUMBER\n")

        for pid in (parker, worker, server.process.pid):  # as systemd does
            os.kill(pid, signal.SIGTERM)
        server.wait_for("stopping")
        server.status()  # by then the workers have their orders
        gate.open()

        assert all_of(busy) == b"let go\n"
        assert all_of(waiting) == b"2\n"
    assert server.ended() == 0


def test_when_the_master_is_killed_all_processes_exit_and_every_client_reads_the_end(
    launch: Launch,
):
    server = launch("moving.py", "--workers", "2")
    with clients(server, 50) as parked, server.connect() as pinned:
        assert ask_all(parked, "ADD 2 3") == ["5"] * 50
        pinned.ask("PIN")
        until_parked(server, 50, hot=1)
        processes = server.watch()
        assert len(processes) == 4  # with loader and parker

        server.send(signal.SIGKILL)

        assert {all_of(peer) for peer in [*parked, pinned]} == {b""}
        assert all(has_ended(pidfd) for pidfd in processes.values())


@pytest.mark.scheme("shared")
def test_a_parker_that_dies_during_a_stop_does_not_hold_it_up(launch: Launch, gate: Gate):
    server = launch("moving.py", "--workers", "1")
    with server.connect() as busy:
        busy.send(b"HOLD\n")
        gate.wait()
        parker = parker_of(server)
        server.send(signal.SIGTERM)
        server.wait_for("stopping")

        os.kill(parker, signal.SIGKILL)
        gate.open()

        assert all_of(busy) == b"let go\n"
    assert server.ended() == 0


# -- idle connections, and too many


def test_the_parker_closes_connections_at_the_idle_timeout_and_no_others(launch: Launch):
    server = launch("moving.py", "--workers", "2", "--idle-timeout", "2")
    with clients(server, 20) as quiet, server.connect() as lively, server.connect() as silent:
        asked_at = time.monotonic()
        assert ask_all(quiet, "ADD 2 3") == ["5"] * 20
        ended: list[object] = []
        while len(ended) < len(quiet):
            assert lively.ask("ADD 2 3") == "5"
            assert time.monotonic() - asked_at < TIMEOUT
            ended = [peer for peer in quiet if select.select([peer.socket], [], [], 0)[0]]

        assert time.monotonic() - asked_at >= 2
        assert {all_of(peer) for peer in [*quiet, silent]} == {b""}
        assert lively.ask("ADD 2 3") == "5"


BUSY = b"SERVER_ERROR too many connections; try again later\r\n"


@pytest.fixture(scope="module", params=PARKING_SCHEMES)
def small_server(
    tmp_path_factory: pytest.TempPathFactory, implementation: None, request: pytest.FixtureRequest
):
    """Give a server for at most five connections."""
    place = tmp_path_factory.mktemp("small")
    options = ("--workers", "2", "--max-connections", "5")
    with ServerProcess(place, "moving.py", *options, scheme=request.param) as server:
        yield server


def test_a_connection_beyond_the_limit_is_refused_until_another_one_ends(
    small_server: ServerProcess,
):
    with clients(small_server, 5) as peers:
        assert ask_all(peers, "ADD 2 3") == ["5"] * 5
        until_parked(small_server, 5)

        with small_server.connect() as refused:
            assert all_of(refused) == BUSY

        assert ask_all(peers, "ADD 2 3") == ["5"] * 5
        until_parked(small_server, 5)
        peers[0].close()
        until_parked(small_server, 4)
        with small_server.connect() as another:
            assert another.ask("ADD 2 3") == "5"


def test_refused_connections_are_counted(small_server: ServerProcess):
    before = small_server.status()["counters"]["refused"]
    with clients(small_server, 5):
        until_parked(small_server, 5)
        for _ in range(3):
            with small_server.connect() as refused:
                assert all_of(refused) == BUSY

    assert small_server.status()["counters"]["refused"] == before + 3


def test_pinned_connections_count_towards_the_limit(small_server: ServerProcess):
    with clients(small_server, 5) as peers:
        *pinned, quiet = peers
        pids = [peer.ask("PIN") for peer in pinned]
        assert quiet.ask("ADD 2 3") == "5"
        until_parked(small_server, 1, hot=4)

        with small_server.connect() as refused:
            refused.socket.settimeout(2)
            assert all_of(refused) == BUSY

        assert [peer.ask("PID") for peer in pinned] == pids


# -- growing


def test_requests_on_parked_connections_make_the_pool_grow(launch: Launch, gate: Gate):
    server = launch("moving.py", "--workers", "1:4", "--min-spare", "0")
    with clients(server, 4) as peers:
        until_parked(server, 4)
        for peer in peers:
            peer.send(b"HOLD\n")

        assert len(set(gate.wait(4))) == 4

        gate.open(4)
        assert [peer.line() for peer in peers] == ["let go"] * 4
    assert "waiting" in server.wait_for("scaling pool: +")
