"""Who may connect: the settings allow and deny, and the bans of ``linepool deny``."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

import linepool
from linepool.testing import Peer, serve
from tests.conftest import Launch
from tests.servers import ENVIRONMENT, TIMEOUT, ServerProcess

pytestmark = pytest.mark.both


def _reply_to(server: ServerProcess, source: str) -> bytes:
    """Return what a client with an address of its own gets; b"": the connection is reset."""
    try:
        with socket.create_connection(("127.0.0.1", server.port), TIMEOUT, (source, 0)) as sock:
            sock.sendall(b"ADD 1 2\n")
            return sock.recv(100)
    except ConnectionResetError:
        return b""


def _serve_until_reset(peer: Peer) -> None:
    """Ask on a connection that is not served any more; a request that came before that is answered."""
    with contextlib.suppress(ConnectionError):
        while peer.ask("ADD 1 2"):
            pass


@pytest.mark.scheme("shared", "dispatch", "accept")
def test_who_may_connect_is_decided_before_a_byte_is_read(tmp_path, launch: Launch, scheme):
    file = tmp_path / "linepool.toml"
    file.write_text('allow = ["127.0.0.0/30", "unix"]\ndeny = "127.0.0.2 192.0.2.0/24"\n')
    server = launch("workshop.py", "--workers", "1", bind=("[::]:0", f"unix:{tmp_path}/s"))

    assert _reply_to(server, "127.0.0.1") == b"3\n"
    assert _reply_to(server, "127.0.0.2") == b""
    assert _reply_to(server, "127.0.0.9") == b""
    with Peer(f"unix:{tmp_path}/s") as peer:
        assert peer.ask("ADD 1 2") == "3"
        server.wait_for("denied a client peer=127.0.0.9:")
        assert server.status()["counters"]["denied"] == 2
        assert server.status()["counters"]["refused"] == 0
        file.write_text('allow = ["127.0.0.0/28"]\n')
        server.order("RELOAD")
        assert _reply_to(server, "127.0.0.9") == b"3\n"
        assert peer.ask("ADD 1 2") == "3"  # it was there before
    with Peer(f"unix:{tmp_path}/s") as peer:
        _serve_until_reset(peer)


@pytest.mark.scheme("shared", "dispatch", "accept")
def test_a_banned_network_is_refused_until_the_ban_is_lifted(launch: Launch, scheme):
    server = launch("workshop.py", "--workers", "3")
    with server.connect() as peer, server.connect() as other:
        assert peer.ask("ADD 1 2") == "3"
        assert other.ask("ADD 1 2") == "3"
        assert server.order("DENY 127.0.0.1 600") == "denied 127.0.0.1 for 600 s"
        assert _reply_to(server, "127.0.0.1") == b""
        assert _reply_to(server, "127.0.0.2") == b"3\n"
        _serve_until_reset(peer)
        server.order("RELOAD")
        (ban,) = server.status()["bans"]
        assert ban["network"] == "127.0.0.1"
        assert _reply_to(server, "127.0.0.1") == b""
    assert server.order("ALLOW 127.0.0.1") == "allowed 127.0.0.1"
    assert _reply_to(server, "127.0.0.1") == b"3\n"
    assert server.status()["bans"] == []


def test_the_command_line_bans_and_lifts(launch: Launch):
    server = launch("workshop.py", "--workers", "1")

    def linepool(*words: str) -> str:
        command = [sys.executable, "-m", "linepool", *words, "--control", server.control]
        run = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=False)
        return (run.stdout + run.stderr).strip()

    assert linepool("deny") == "no network is denied"
    assert (
        linepool("deny", "::ffff:192.0.2.0/120", "--for", "2h") == "denied 192.0.2.0/24 for 7200 s"
    )
    assert linepool("deny").startswith("192.0.2.0/24 left_s=7")
    assert "must be a time such as 90s, 10m" in linepool("deny", "192.0.2.1", "--for", "soon")
    assert "192.0.2.1/24 has bits set" in linepool("deny", "192.0.2.1/24")
    assert linepool("allow", "192.0.2.9").endswith("192.0.2.9 is not banned; banned: 192.0.2.0/24")
    assert linepool("allow", "192.0.2.0/24") == "allowed 192.0.2.0/24"


@pytest.mark.scheme("shared", "accept")
def test_an_address_may_ask_so_often_over_all_workers_and_connections(launch: Launch, scheme):
    limits = ("--max-requests-per-second", "0.01", "--request-burst", "3")
    server = launch("workshop.py", "--workers", "2", *limits)

    replies = [_reply_to(server, "127.0.0.1") for _ in range(5)]

    assert replies[:3] == [b"3\n"] * 3
    assert all(reply.startswith(b"SERVER_ERROR busy: more than 0.01 req") for reply in replies[3:])
    assert _reply_to(server, "127.0.0.2") == b"3\n"
    server.wait_for("requests refused: too many per second peer=127.0.0.1:")
    assert server.status()["counters"]["limited"] == 2


@pytest.mark.scheme("shared", "accept")
@pytest.mark.linux("without SO_PEERCRED the user is not known")
def test_a_listener_has_a_rate_of_its_own_and_unix_clients_count_by_user(
    tmp_path, launch: Launch, scheme
):
    (tmp_path / "linepool.toml").write_text(
        "max_requests_per_second = 0.01\n"
        "request_burst = 2\n"
        f'[[listener]]\nbind = ["127.0.0.1:0", "unix:{tmp_path}/s"]\n'
        '[[listener]]\nbind = "127.0.0.1:0"\nname = "quick"\nrequest_burst = 3\n'
        '[[listener]]\nbind = "127.0.0.1:0"\nname = "free"\nmax_requests_per_second = 0\n'
    )
    server = launch("workshop.py", "--workers", "1", bind=())

    def served(listener: int) -> tuple[int, str]:
        """Return how many of five requests are served, and the last reply."""
        with server.connect(listener) as peer:
            peer.send(b"ADD 1 2\n" * 5)
            replies = [peer.line() for _ in range(5)]
        return replies.count("3"), replies[-1]

    counts = [served(number) for number in range(4)]
    again = [served(number)[0] for number in range(4)]

    assert [count for count, _ in counts] == [2, 2, 3, 5]
    assert again == [0, 0, 0, 5]
    assert counts[0][1].endswith("from your address; try again later")
    assert counts[1][1].endswith("from your user; try again later")
    assert server.status()["counters"]["limited"] == 3 + 3 + 2 + 15


class Store:
    """The resource of the next test."""


@pytest.mark.parametrize("has_middleware", [False, True])
def test_a_refused_request_has_no_resource_checked(has_middleware):
    app, checks = linepool.App("store"), list[Store]()

    def is_well(store: Store) -> bool:
        checks.append(store)
        return True

    @app.resource(check=is_well, check_after=3600)
    def store() -> Iterator[Store]:
        yield Store()

    @app.handler
    def checked(store: Store) -> int:
        return len(checks)

    if has_middleware:

        @app.middleware
        def passes(request, session, call_next):
            return call_next(request)

    limits = {"max_requests_per_second": 0.01, "request_burst": 2}
    with serve(app, workers=1, **limits) as server, server.connect() as peer:
        replies = [peer.ask("CHECKED") for _ in range(4)]
        assert replies[:2] == ["0", "0"]
        assert all(reply.startswith("SERVER_ERROR busy") for reply in replies[2:])
        address = ("127.0.0.1", int(server.address.rpartition(":")[2]))
        with socket.create_connection(address, TIMEOUT, ("127.0.0.2", 0)) as other:
            other.sendall(b"CHECKED\n")
            assert other.recv(100) == b"0\n"
