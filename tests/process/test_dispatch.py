"""The scheme ``dispatch``: the parker accepts, and workers get only clients that have sent data."""

from __future__ import annotations

import os
import select
import signal
import time

import pytest

from tests.conftest import Launch
from tests.process.connections import clients, parker_of, until_parked
from tests.servers import Load, ServerProcess, freeze

pytestmark = pytest.mark.scheme("dispatch")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, implementation: None):
    """Give a server with a short read timeout."""
    options = ("--workers", "4", "--read-timeout", "0.4")
    place = tmp_path_factory.mktemp("dispatch")
    with ServerProcess(place, "moving.py", *options, scheme="dispatch") as server:
        yield server


def test_a_silent_client_never_reaches_a_worker(server: ServerProcess):
    before = server.status()["counters"]["connections"]
    with clients(server, 50):
        state = until_parked(server, 50)

        assert state["counters"]["connections"] == before
        assert state["tally"]["idle"] == 4
    until_parked(server, 0)


def test_a_client_is_greeted_once_and_before_it_has_sent_anything(launch: Launch, tmp_path):
    journal = tmp_path / "journal"
    server = launch("moving.py", "--workers", "2", environment={"JOURNAL": str(journal)})
    with clients(server, 20) as peers:
        greetings = [peer.line() for peer in peers]
        until_parked(server, 20)
        ids = [peer.ask("WHO").split()[0] for peer in peers]

    assert greetings == [f"hello {name}" for name in ids]
    connected = [line.split()[1] for line in journal.read_text().splitlines() if "dis" not in line]
    assert sorted(connected) == sorted(ids)


def test_a_request_that_arrives_in_pieces_has_one_read_timeout_however_often_it_moves(
    server: ServerProcess,
):
    with server.connect() as peer:
        began_at = time.monotonic()
        peer.send(b"ADD 1 1\nADD 2")
        assert peer.line() == "2"

        pieces = 0
        while not select.select([peer.socket], [], [], 0.02)[0]:
            peer.send(b"0")
            pieces += 1

        error = "CLIENT_ERROR the request did not arrive within 0.4 s; it was not run"
        assert peer.line() == error
        assert peer.line() == ""
        assert time.monotonic() - began_at >= 0.4
        assert pieces >= 3


def test_clients_that_were_connected_before_the_stop_get_a_reply(launch: Launch):
    server = launch("moving.py", "--workers", "3")
    load = Load(server, clients=9, gap=True)
    try:
        server.until(lambda _: load.served >= 100)
        stopped_at = time.monotonic()
        assert server.stop() == 0
    finally:
        load.join()

    assert [got for at, got in load.failures if at < stopped_at] == []


def test_clients_in_the_backlog_are_served_before_the_server_stops(launch: Launch):
    server = launch("moving.py", "--workers", "2")
    parker = parker_of(server)
    freeze(parker)
    with clients(server, 150) as queued:
        for peer in queued:
            peer.send(b"ADD 2 3\n")
        server.send(signal.SIGTERM)
        server.wait_for("stopping")

        os.kill(parker, signal.SIGCONT)

        assert [(peer.line(), peer.line()) for peer in queued] == [("5", "")] * 150
    assert server.ended() == 0


def test_retiring_workers_under_load_loses_no_connection(server: ServerProcess):
    before = server.status()["counters"]["retired"]
    load = Load(server, clients=3)
    try:
        for _ in range(3):
            server.order("SCALE 1")
            server.until(lambda state: state["tally"]["total"] == 1)
            server.order("SCALE 4")
            served = load.served
            server.until(lambda state: state["tally"]["total"] == 4)
            server.until(lambda _: load.served >= served + 30)  # noqa: B023 - called at once
    finally:
        load.join()

    assert load.failures == []
    assert server.status()["counters"]["retired"] == before + 9
