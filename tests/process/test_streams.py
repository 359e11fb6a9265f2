"""Clients that do not read what a handler streams or pushes to them: they hold no worker."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator

import pytest

from linepool.testing import Peer
from tests.conftest import Launch
from tests.process.connections import PARKING_SCHEMES, clients
from tests.servers import HANDLERS, Gate, ServerProcess

pytestmark = [pytest.mark.both, pytest.mark.scheme(*PARKING_SCHEMES)]


@contextlib.contextmanager
def deaf_clients(server: ServerProcess, count: int, command: str = "FLOOD") -> Iterator[list[Peer]]:
    """Give clients that ask for a stream and do not read it, once it waits for them."""
    with clients(server, count) as peers:
        for peer in peers:
            peer.send(command.encode() + b"\n")
        server.until(lambda state: state["counters"]["connections"] >= count and is_idle(state))
        yield peers


def is_idle(state) -> bool:
    """Whether all workers wait for work."""
    return bool(state["tally"]["idle"] == state["tally"]["total"])


def test_clients_that_read_no_stream_hold_no_worker(launch: Launch, scheme):
    server = launch(f"{HANDLERS}/streaming.py:app", "--workers", "2")
    with deaf_clients(server, 8), clients(server, 8) as others:
        for number in range(20):
            assert [peer.ask(f"ADD {number} 1") for peer in others] == [str(number + 1)] * 8
        state = server.until(is_idle)
        assert state["connections"]["hot"] >= 8
        assert all(worker["command"] is None for worker in state["workers"])


@pytest.mark.scheme("shared", "accept")
def test_a_stream_that_was_suspended_is_still_overdue_in_its_handler(launch: Launch, scheme):
    options = ("--workers", "1", "--request-timeout", "0.3", "--kill-grace", "1")
    server = launch(f"{HANDLERS}/streaming.py:app", *options)
    with server.connect() as peer:
        peer.send(b"STUCK 20\nADD 1 1\n")
        if scheme == "shared":
            server.until(is_idle)
            assert server.ask("ADD 2 3") == "5"

        assert {len(peer.line()) for _ in range(20)} == {1_000_000}
        assert peer.line() == "SERVER_ERROR the request took longer than 0.3 s"
        assert peer.line() == "2"
    assert server.status()["counters"]["timeouts"] == 1


@pytest.mark.parametrize("way", ["leaves", "does not read"])
def test_the_handler_of_a_stream_that_is_given_up_ends(launch: Launch, gate: Gate, scheme, way):
    server = launch(f"{HANDLERS}/streaming.py:app", "--workers", "1", "--write-timeout", "0.5")
    with deaf_clients(server, 1, "WATCHED") as peers:
        if way == "leaves":
            peers[0].close()

        assert gate.wait() == server.pids()
        server.until(lambda state: state["connections"]["hot"] == 0)
    assert server.ask("ADD 2 3") == "5"


@pytest.mark.scheme("shared", "dispatch", "accept")
def test_a_stop_waits_for_a_stream_that_is_read(launch: Launch, scheme):
    server = launch(f"{HANDLERS}/streaming.py:app", "--workers", "1")
    with server.connect() as peer:
        peer.send(b"STREAM 20 1000000\n")
        assert peer.line()

        server.send(signal.SIGTERM)
        server.wait_for("stopping")

        assert {len(peer.line()) for _ in range(19)} == {1_000_000}
        assert [peer.line(), peer.line()] == ["END", ""]
    assert server.ended() == 0


@pytest.mark.scheme("shared", "dispatch", "accept")
def test_a_stop_ends_a_stream_that_is_not_read_without_a_kill(launch: Launch, gate: Gate, scheme):
    server = launch(f"{HANDLERS}/streaming.py:app", "--workers", "1", "--graceful-timeout", "4")
    with server.connect() as peer:
        peer.send(b"WATCHED\n")
        assert peer.line()

        server.send(signal.SIGTERM)

        gate.wait()
        assert server.ended() == 0
    assert "worker killed" not in server.text


@pytest.mark.scheme("shared", "dispatch", "accept")
def test_a_worker_that_leaves_ends_its_streams_in_time(launch: Launch, gate: Gate, scheme):
    server = launch(f"{HANDLERS}/streaming.py:app", "--workers", "1", "--graceful-timeout", "2")
    with server.connect() as peer:
        peer.send(b"WATCHED\n")
        assert peer.line()
        (worker,) = server.pids()

        os.kill(worker, signal.SIGTERM)

        assert gate.wait() == [worker]
        server.until_gone(worker)
    assert server.ask("ADD 2 3") == "5"
    assert server.status()["counters"]["kills"] == 0


def test_only_as_many_clients_as_connections_of_a_worker_may_leave_streams_unread(
    launch: Launch, scheme
):
    server = launch(f"{HANDLERS}/streaming.py:app", "--workers", "1", "--hot-connections", "4")
    with deaf_clients(server, 4):
        with deaf_clients(server, 2):
            for _ in range(2):
                server.wait_for("connection closed: too many clients do not read peer=")
            assert server.until(is_idle)["connections"]["hot"] == 4
        with clients(server, 6) as others:
            for number in range(5):
                assert [peer.ask(f"ADD {number} 1") for peer in others] == [str(number + 1)] * 6


def test_a_message_comes_after_the_stream_that_it_finds_suspended(launch: Launch, scheme):
    server = launch(f"{HANDLERS}/streaming.py:app", "--workers", "1")
    with deaf_clients(server, 1, "LISTEN 20") as (peer,):
        assert server.ask("PUBLISH hello") == "1"

        assert {len(peer.line()) for _ in range(20)} == {1_000_000}
        assert [peer.line(), peer.line()] == ["END", "message hello"]


def test_a_push_waits_for_its_time_only_and_a_little_of_it_not_at_all(launch: Launch, scheme):
    server = launch(f"{HANDLERS}/streaming.py:app", "--workers", "1", "--push-timeout", "0.2")
    with server.connect() as deaf, server.connect() as modest:
        modest.send(b"PUSH 1\n")
        assert len(modest.line()) == 1_000_000
        assert modest.line() == "all"

        deaf.send(b"PUSH 100\n")
        server.until(lambda state: state["counters"]["requests"] == 2)  # it has ended, unread
        assert server.ask("ADD 2 3") == "5"
        lines = 0
        while len(line := deaf.line()) == 1_000_000:
            lines += 1

        assert 1 <= lines < 20
        assert line == f"{lines - 1} the client does not read"
        assert deaf.ask("ADD 2 3") == "5"
