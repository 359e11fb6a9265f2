"""What one client or one address may take of the server, and what it is told beyond that."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Iterator

import pytest

from linepool.kernel.sockets import origin_of
from linepool.settings import Settings
from linepool.testing import Peer
from tests.conftest import Launch
from tests.process.connections import (
    PARKING_SCHEMES,
    all_of,
    ask_all,
    parker_of,
    until_parked,
    until_read,
)
from tests.servers import TIMEOUT, ServerProcess

FROM_ONE = b"SERVER_ERROR too many connections from your address; try again later\r\n"
WHY = "why='too many connections from your address'"
UNFINISHED = b"SERVER_ERROR too many unfinished requests; try again later\r\n"


class PeerFrom(Peer):
    """A connection from one of this machine's addresses."""

    def __init__(self, server: ServerProcess, address: str) -> None:
        there = ("127.0.0.1", server.port)
        self.socket = socket.create_connection(there, TIMEOUT, source_address=(address, 0))
        self._stream = self.socket.makefile("rb")


@contextlib.contextmanager
def clients_from(server: ServerProcess, address: str, count: int) -> Iterator[list[Peer]]:
    """Give connections from an address, once they have been served."""
    with contextlib.ExitStack() as stack:
        peers: list[Peer] = [stack.enter_context(PeerFrom(server, address)) for _ in range(count)]
        assert ask_all(peers, "ADD 2 3") == ["5"] * count
        yield peers


# -- connections of one address


@pytest.mark.scheme("shared", "dispatch", "accept")
def test_an_address_is_refused_beyond_its_limit_and_others_are_served(launch: Launch, scheme):
    server = launch("moving.py", "--workers", "6", "--max-connections-per-address", "3")
    with clients_from(server, "127.0.0.1", 3) as peers:
        # None moves any more: in the channel it counts for neither process.
        until_parked(server, 3) if scheme in PARKING_SCHEMES else until_parked(server, 0, hot=3)
        for _ in range(2):
            with PeerFrom(server, "127.0.0.1") as refused:
                assert all_of(refused) == FROM_ONE
        with clients_from(server, "127.0.0.2", 3):
            assert ask_all(peers, "ADD 2 3") == ["5"] * 3

        assert server.status()["counters"]["refused"] == 2
        peers[0].close()
        server.until(lambda state: state["connections"] != {"hot": 6, "parked": 0})
    server.until(lambda state: sum(state["connections"].values()) == 0)
    with clients_from(server, "127.0.0.1", 3):
        pass
    assert server.wait_for("refused a client peer=127.0.0.1:").endswith(WHY)


@pytest.mark.scheme(*PARKING_SCHEMES)
@pytest.mark.parametrize("victim", ["worker", "parker"])
def test_the_count_of_an_address_is_right_after_deaths_and_moves(launch: Launch, scheme, victim):
    server = launch("moving.py", "--workers", "2", "--max-connections-per-address", "4")
    with clients_from(server, "127.0.0.1", 4) as peers:
        pinned, *others = peers
        worker = int(pinned.ask("PIN"))
        for _ in range(3):
            until_parked(server, 3, hot=1)
            assert ask_all(others, "ADD 2 3") == ["5"] * 3
        until_parked(server, 3, hot=1)

        os.kill(worker if victim == "worker" else parker_of(server), signal.SIGKILL)
        gone = [pinned] if victim == "worker" else others
        with contextlib.suppress(ConnectionResetError):
            assert [peer.line() for peer in gone] == [""] * len(gone)
        server.until(lambda state: state["counters"]["dropped"] == len(gone))

        with clients_from(server, "127.0.0.1", len(gone)):
            still_pinned = int(victim == "parker")
            until_parked(server, 4 - still_pinned, hot=still_pinned)
            with PeerFrom(server, "127.0.0.1") as refused:
                assert all_of(refused) == FROM_ONE


@pytest.mark.parametrize(
    ("settings", "limit"),
    [
        ({}, 9000),
        ({"max_connections": 1000}, 900),
        ({"max_connections": 999}, 999),
        ({"max_connections_per_address": 5}, 5),
        ({"max_connections_per_address": 20_000}, 20_000),
        ({"scheme": "accept"}, 10_000),
        ({"scheme": "accept", "max_connections_per_address": 5}, 5),
    ],
)
def test_one_address_cannot_take_all_connections_of_a_large_server(settings, limit):
    assert Settings(**settings).address_limit == limit


# -- requests that are not finished


def upload(server: ServerProcess, size: int, *, complete: bool) -> Peer:
    """Return a client that has sent a data block, or most of it."""
    peer = server.connect()
    peer.send(b"PUT %d\n" % size + b"x" * size + b"\n" * complete)
    return peer


@pytest.mark.scheme(*PARKING_SCHEMES)
def test_unfinished_requests_are_refused_when_they_are_too_long_altogether(launch: Launch, scheme):
    server = launch("moving.py", "--workers", "2", "--max-unfinished-mb", "1")
    with contextlib.ExitStack() as stack:
        uploads = [stack.enter_context(upload(server, 300_000, complete=False)) for _ in range(3)]
        until_read(server, uploads)
        until_parked(server, 3)
        short = stack.enter_context(upload(server, 1000, complete=False))
        refused = stack.enter_context(upload(server, 300_000, complete=False))

        assert all_of(refused) == UNFINISHED
        server.wait_for("refused a client peer=127.0.0.1:")

        assert server.ask("ADD 2 3") == "5"
        if scheme == "shared":  # else each part of a request passes through the parker
            whole = stack.enter_context(upload(server, 300_000, complete=True))
            assert whole.line() == f"300000 {300_000 * ord('x')}"
        for peer, size in [(short, 1000), *((one, 300_000) for one in uploads)]:
            peer.send(b"\n")
            assert peer.line() == f"{size} {size * ord('x')}"
        server.until(lambda state: state["connections"]["hot"] == 0)
        with upload(server, 300_000, complete=False) as late:
            server.until(lambda state: state["connections"]["hot"] == 0)
            late.send(b"\n")
            assert late.line() == f"300000 {300_000 * ord('x')}"
    assert server.status()["counters"]["refused"] == 1


# -- where a client comes from


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (("192.0.2.1", 1000), ("192.0.2.1", 2000), True),
        (("192.0.2.1", 1000), ("192.0.2.2", 1000), False),
        (("192.0.2.1", 1000), ("::ffff:192.0.2.1", 1000, 0, 0), True),
        (("2001:db8::1", 1000, 0, 0), ("2001:db8::ffff:ffff:ffff:ffff", 1000, 0, 0), True),
        (("2001:db8::1", 1000, 0, 0), ("2001:db8:0:1::1", 1000, 0, 0), False),
        (("fe80::1%lo", 1000, 0, 1), ("fe80::2", 1000, 0, 1), True),
    ],
)
def test_an_ipv6_network_counts_as_one_address(one, other, same):
    assert (origin_of(one) == origin_of(other)) == same


def test_clients_of_unix_sockets_count_for_no_address():
    assert origin_of("") == origin_of(b"\0name") == 0
