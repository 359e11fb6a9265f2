"""The scheme ``shared``: workers accept, hold several hot connections, and hand off the others."""

from __future__ import annotations

import contextlib
import os
import signal
import time

import pytest

from linepool.testing import Peer
from tests.conftest import Launch
from tests.process.connections import all_of, ask_all, clients, until_parked
from tests.servers import Gate, ServerProcess

pytestmark = [pytest.mark.both, pytest.mark.scheme("shared")]


# -- hot and parked


def test_connections_are_not_parked_before_park_after(launch: Launch):
    server = launch("moving.py", "--workers", "1", "--park-after", "60")
    with clients(server, 20) as peers:
        for count in ("1", "2", "3"):
            assert ask_all(peers, "NEXT_NUMBER") == [count] * 20

        until_parked(server, 0, hot=20)


def test_a_connection_that_comes_back_soon_is_kept_for_longer(launch: Launch):
    server = launch("moving.py", "--workers", "1", "--park-after", "0.1")
    kept = quiet = 0.0
    with server.connect() as peer:
        for _ in range(5):  # on a busy machine it may be parked too late to come back soon
            assert peer.ask("ADD 2 3") == "5"
            quiet_since = time.monotonic()
            until_parked(server, 1)
            back_at = time.monotonic()
            assert peer.ask("ADD 2 3") == "5"
            until_parked(server, 1)
            kept, quiet = time.monotonic() - back_at, back_at - quiet_since
            if kept >= 2 * quiet:
                break

    assert kept >= 2 * quiet


def test_a_worker_holds_no_more_connections_than_it_may(launch: Launch):
    options = ("--park-after", "60", "--hot-connections", "3")
    server = launch("moving.py", "--workers", "2", *options)
    with clients(server, 20) as peers:
        for count in (1, 2):
            assert [peer.ask("NEXT_NUMBER") for peer in peers] == [str(count)] * 20

        server.until(lambda state: state["connections"]["hot"] <= 6)


@pytest.mark.parametrize("asks", [1, 2])
def test_a_full_worker_keeps_the_connections_that_are_used_more_often(launch: Launch, asks):
    options = ("--workers", "1", "--park-after", "60", "--hot-connections", "2")
    server = launch("moving.py", *options)
    with contextlib.ExitStack() as stack:

        def connect() -> Peer:
            peer = stack.enter_context(server.connect())
            assert peer.ask("REMEMBER a") == "OK"
            return peer

        first = connect()
        # How long each connection has been quiet decides, so the two must differ by more than the
        # time in which a busy machine serves a request.
        begun = server.status()["uptime_s"]
        server.until(lambda state: state["uptime_s"] > begun + 0.3)
        second, third = connect(), connect()
        until_parked(server, 1, hot=2)
        for _ in range(asks):
            assert first.ask("RECALL") == "a"
            until_parked(server, 1, hot=2)

        os.kill(int(third.ask("PID")), signal.SIGKILL)

        # After one request the first had been quiet for longer than the second; after two, for less.
        kept, lost = (first, second) if asks == 1 else (second, first)
        assert all_of(lost) == all_of(third) == b""
        assert kept.ask("RECALL") == "a"


def test_a_worker_full_of_pinned_connections_keeps_no_client_waiting(launch: Launch):
    server = launch("moving.py", "--workers", "2", "--hot-connections", "2")
    with contextlib.ExitStack() as stack:
        pinned: list[str] = []
        while not pinned or pinned.count(pinned[-1]) < 2:
            pinned.append(stack.enter_context(server.connect()).ask("PIN"))
        for _ in range(3):
            with server.connect() as peer:
                peer.socket.settimeout(2)  # or until the next client comes

                assert peer.ask("ADD 2 3") == "5"


def test_simultaneous_requests_are_distributed_among_idle_workers(launch: Launch, gate: Gate):
    server = launch("moving.py", "--workers", "4", "--park-after", "60")
    with clients(server, 4) as peers:
        for peer in peers:
            assert peer.ask("ADD 2 3") == "5"
        for peer in peers:
            peer.send(b"HOLD\n")

        assert len(set(gate.wait(4))) == 4

        gate.open(4)
        assert [peer.line() for peer in peers] == ["let go"] * 4


# -- the other connections of a stuck worker

ENDED = b"SERVER_ERROR the request was ended: it took longer than 0.2 s\n"


@pytest.fixture(scope="module")
def single_worker(
    tmp_path_factory: pytest.TempPathFactory, implementation: None, module_gate: Gate
):
    """Give a server with one worker, which is killed soon after a request is overdue."""
    limits = ("--request-timeout", "0.2", "--kill-grace", "0.05")
    options = ("--workers", "1", "--park-after", "60", *limits)
    with ServerProcess(
        tmp_path_factory.mktemp("single"),
        "moving.py",
        *options,
        bind=("127.0.0.1:0", "unix:sock"),
        gate=module_gate,
        scheme="shared",
    ) as server:
        yield server


def test_a_kill_spares_the_connections_without_state_in_the_worker(
    single_worker: ServerProcess, module_gate: Gate
):
    server, gate = single_worker, module_gate
    before = server.status()["counters"]["dropped"]
    with clients(server, 5) as peers:
        stuck, quiet, waiting, remembered, known = peers
        assert ask_all(peers, "ADD 2 3") == ["5"] * 5
        assert remembered.ask("REMEMBER a") == "OK"
        assert known.ask("LOG_IN ann") == "OK"
        stuck.send(b"STUCK_IN_C\n")
        (killed,) = gate.wait()
        waiting.send(b"ADD 1 1\nREMEMBER b\n")

        assert all_of(stuck) == ENDED
        assert waiting.line() == "2"
        assert waiting.line() == "OK"
        assert waiting.ask("RECALL") == "b"
        assert quiet.ask("ADD 2 3") == "5"
        assert quiet.ask("PID") != str(killed)
        assert all_of(remembered) == b""
        assert all_of(known) == b""
    # The two connections with state, and the one whose request was stuck.
    assert f"pid={killed} saved=2 lost=3" in server.wait_for("connections of a dead worker")
    assert server.status()["counters"]["dropped"] == before + 3


def test_a_connection_whose_half_line_was_read_by_the_killed_worker_is_closed(
    single_worker: ServerProcess, module_gate: Gate
):
    server, gate = single_worker, module_gate
    with clients(server, 2) as peers:
        stuck, half = peers
        half.send(b"ADD 1 1\nADD ")
        assert half.line() == "2"
        stuck.send(b"STUCK_IN_C\n")
        gate.wait()
        half.send(b"2 3\n")

        assert all_of(stuck) == ENDED
        with contextlib.suppress(ConnectionResetError):  # the worker had not read the rest
            assert all_of(half) == b""


def test_a_saved_connection_keeps_its_peer_and_listener(
    single_worker: ServerProcess, module_gate: Gate
):
    server, gate = single_worker, module_gate
    with server.connect(0) as tcp, server.connect(1) as unix, server.connect() as stuck:
        known = [peer.ask("WHO").split()[1:] for peer in (tcp, unix)]
        stuck.send(b"STUCK_IN_C\n")
        gate.wait()

        assert all_of(stuck) == ENDED
        assert [peer.ask("WHO").split()[1:] for peer in (tcp, unix)] == known


def test_saved_connections_have_different_ids(single_worker: ServerProcess, module_gate: Gate):
    server, gate = single_worker, module_gate
    names = set()
    for _ in range(2):
        with server.connect() as saved, server.connect() as stuck:
            assert saved.ask("ADD 2 3") == "5"
            stuck.send(b"STUCK_IN_C\n")
            gate.wait()
            assert all_of(stuck) == ENDED
            names.add(saved.ask("WHO").split()[0])
    assert len(names) == 2


def test_a_worker_that_is_killed_from_outside_drops_only_the_connections_it_holds(launch: Launch):
    server = launch("moving.py", "--workers", "2")
    with clients(server, 20) as quiet, server.connect() as pinned:
        assert ask_all(quiet, "NEXT_NUMBER") == ["1"] * 20
        worker = int(pinned.ask("PIN"))
        until_parked(server, 20, hot=1)

        os.kill(worker, signal.SIGKILL)

        assert all_of(pinned) == b""
        assert f"pid={worker} saved=0 lost=1" in server.wait_for("connections of a dead worker")
        assert ask_all(quiet, "NEXT_NUMBER") == ["2"] * 20
    assert server.status()["counters"]["dropped"] == 1
