"""Connections through a proxy that says who its clients are: the PROXY protocol."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import struct

import pytest

from linepool.testing import Peer
from tests.certificates import Authority
from tests.conftest import Launch
from tests.process.connections import PARKING_SCHEMES, all_of, until_parked
from tests.servers import TIMEOUT, Gate, ServerProcess

pytestmark = pytest.mark.both

CLIENT = "192.0.2.1:1000"
HEADER_1 = b"PROXY TCP4 192.0.2.1 198.51.100.2 1000 7000\r\n"
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
HEADER_2 = SIGNATURE + b"\x21\x11\0\x0c\xc0\0\2\1\xc6\x33\x64\2\x03\xe8\x1b\x58"
LOCAL = SIGNATURE + b"\x20\0\0\0"


def _client(peer: Peer) -> str:
    """Return the client that the app sees, after its greeting."""
    assert peer.line().startswith("hello ")
    return peer.ask("WHO").split()[1]


@pytest.mark.scheme("shared", "dispatch", "accept")
@pytest.mark.linux("without POLLRDHUP the end behind an incomplete header is not seen")
def test_the_client_is_the_one_that_the_header_names(tmp_path, launch: Launch, scheme):
    options = (
        "--workers",
        "2",
        "--proxy-from=127.0.0.1 unix",
        "--proxy-timeout=60",
        "--deny=192.0.2.66",
    )
    journal = tmp_path / "journal"
    server = launch(
        "hooks.py",
        *options,
        bind=("127.0.0.1:0", f"unix:{tmp_path}/s"),
        environment={"JOURNAL": str(journal)},
    )

    for header in HEADER_1, HEADER_2:
        with server.connect() as peer:
            peer.send(header + b"WHO\n")  # in one segment
            assert peer.line().startswith("hello ")
            assert peer.line().split()[1] == CLIENT
            assert peer.ask("WHO").split()[1] == CLIENT
        with server.connect(1) as peer:
            for byte in header:
                peer.send(bytes([byte]))
            assert _client(peer) == CLIENT
    with server.connect() as peer:
        peer.send(LOCAL)
        assert _client(peer) == f"127.0.0.1:{peer.socket.getsockname()[1]}"
    with server.connect(1) as peer:
        peer.send(b"PROXY UNKNOWN\r\n")
        assert _client(peer) == "unix"
    connections = server.status()["counters"]["connections"]
    _is_not_served(server, HEADER_1.replace(b"192.0.2.1", b"192.0.2.66"))
    _is_not_served(server, b"WHO\n")
    server.wait_for("reason=PROXY header: it does not begin with one")
    _is_not_served(server, HEADER_2[:-1], end=True)
    _is_not_served(server, b"", end=True)
    _is_not_served(server, HEADER_1, source="127.0.0.2")
    assert server.status()["counters"]["connections"] == connections
    assert journal.read_text().count(" connect ") == connections
    _check(server, HEADER_1)  # it may be served, if its end comes late
    _check(server, LOCAL)
    _check(server, b"")
    state = server.status()
    assert state["counters"]["denied"] == 2
    assert state["counters"]["errors"] == 0
    assert server.stop() == 0, server.text
    assert " ERROR " not in server.text
    assert len([line for line in server.log if "WARNING" in line and "peer=" in line]) == 3


def _is_not_served(
    server: ServerProcess, data: bytes, *, end: bool = False, source: str = "127.0.0.1"
) -> None:
    """Send some bytes, and perhaps the end of the stream; nothing must come back."""
    address = ("127.0.0.1", server.port)
    try:
        with socket.create_connection(address, TIMEOUT, (source, 0)) as sock:
            sock.sendall(data)
            if end:
                sock.shutdown(socket.SHUT_WR)
            assert sock.recv(100) == b""
    except ConnectionError:
        pass


def _check(server: ServerProcess, data: bytes) -> None:
    """Do as a load balancer that checks whether the server is there: connect, and reset the connection."""
    with socket.create_connection(("127.0.0.1", server.port), TIMEOUT) as sock:
        sock.sendall(data)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@pytest.mark.scheme("shared", "dispatch", "accept")
def test_a_header_that_does_not_come_holds_up_no_worker(launch: Launch, scheme):
    workers = "1" if scheme != "accept" else "2"
    server = launch(
        "workshop.py", "--workers", workers, "--proxy-from", "127.0.0.1", "--proxy-timeout", "0.5"
    )

    with server.connect() as late:
        late.send(HEADER_1[:20])
        with server.connect() as peer:
            peer.send(HEADER_1)
            assert peer.ask("ADD 1 2") == "3"
        with contextlib.suppress(ConnectionResetError):
            assert late.line() == ""
    server.wait_for("reason=PROXY header: incomplete after 0.5 s")


@pytest.mark.scheme("shared")
def test_the_connections_of_one_announced_network_are_counted(launch: Launch, scheme):
    # One that moves is not counted for a moment.
    options = [
        "--proxy-from",
        "127.0.0.1",
        "--max-connections-per-address",
        "2",
        "--park-after",
        "10",
    ]
    server = launch("workshop.py", "--workers", "2", *options)
    with contextlib.ExitStack() as stack:
        replies = []
        for number in 1, 2, 3:
            peer = stack.enter_context(server.connect())
            peer.send(b"PROXY TCP6 2001:db8::%d 2001:db8::9 1 2\r\nADD 1 2\n" % number)
            replies.append(peer.line())
    assert replies[:2] == ["3", "3"]
    assert replies[2].startswith("SERVER_ERROR too many connections from your address")


@pytest.mark.scheme(*PARKING_SCHEMES)
def test_the_client_travels_with_its_connection(tmp_path, launch: Launch, scheme):
    options = ["--workers", "2", "--proxy-from", "127.0.0.1", "--proxy-timeout", "60"]
    server = launch("hooks.py", *options, environment={"JOURNAL": str(tmp_path / "j")})
    with server.connect() as peer, server.connect() as waiting:
        waiting.send(HEADER_2[:15])
        peer.send(HEADER_2)
        assert _client(peer) == CLIENT
        server.order("RELOAD")
        server.order("DENY 192.0.2.9 60")
        waiting.send(HEADER_2[15:])
        assert _client(waiting) == CLIENT
        until_parked(server, 2)
        assert peer.ask("WHO").split()[1] == CLIENT
        server.order("DENY 192.0.2.1 60")
        with contextlib.suppress(ConnectionError):
            while waiting.ask("WHO"):
                pass


def _with_parts(*parts: tuple[int, str]) -> bytes:
    """Return a header of version 2 with some parts, of their types."""
    body = HEADER_2[16:]
    for kind, text in parts:
        body += struct.pack("!BH", kind, len(text)) + text.encode()
    return HEADER_2[:14] + struct.pack("!H", len(body)) + body


@pytest.mark.scheme(*PARKING_SCHEMES)
def test_a_killed_worker_leaves_its_clients_what_their_proxy_has_said(
    tmp_path, launch: Launch, gate: Gate, scheme
):
    limits = ("--request-timeout", "0.2", "--kill-grace", "0.05", "--park-after", "60")
    proxies = ("--proxy-from", "127.0.0.1 unix", "--log-level", "debug")
    bind = ("127.0.0.1:0", f"unix:{tmp_path}/s")
    server = launch("proxied.py", "--workers", "1", *limits, *proxies, bind=bind)
    with contextlib.ExitStack() as stack:
        saved, known = [], []
        headers = [HEADER_1, _with_parts((2, "shop.example"), (5, "7f-3a")), LOCAL]
        for place, header in enumerate([*headers, LOCAL]):
            peer = stack.enter_context(server.connect(place // 3))
            peer.send(header)
            saved.append(peer)
            known.append(_facts(peer))
        long = stack.enter_context(server.connect())
        long.send(_with_parts((2, "a" * 250), (1, "b" * 250)))
        _facts(long)
        stuck = stack.enter_context(server.connect())
        stuck.send(b"PROXY TCP6 2001:db8::5 2001:db8::9 1 2\r\nSTUCK_IN_C\n")
        (killed,) = gate.wait()

        assert all_of(stuck) == b"SERVER_ERROR the request was ended: it took longer than 0.2 s\n"
        assert [_facts(peer) for peer in saved] == known
        assert "proxy.authority=shop.example" in known[1]
        assert f"uid={os.getuid()}" in known[3]
        server.wait_for(" client=[2001:db8::5]:1 ")
        if scheme == "shared":
            assert all_of(long) == b""  # what is too long for the board cannot be saved
            server.wait_for(f"connections of a dead worker pid={killed} saved=4 lost=2")
        server.order("DENY 192.0.2.1 60")
        with contextlib.suppress(ConnectionError):
            while saved[0].ask("PID"):
                pass
        assert _facts(saved[2]) == known[2]


def _facts(peer: Peer) -> list[str]:
    """Return what the app knows of a client."""
    peer.send(b"FACTS\n")
    lines = [peer.line()]
    while lines[-1] not in ("END", ""):
        lines.append(peer.line())
    return lines


@pytest.mark.scheme("accept")
@pytest.mark.linux("the client of a killed worker reads no error line")
def test_the_log_names_the_client_of_a_killed_worker_and_not_its_proxy(
    launch: Launch, gate: Gate, scheme
):
    limits = ("--request-timeout", "0.2", "--kill-grace", "0.05")
    server = launch("proxied.py", "--workers", "1", "--proxy-from", "127.0.0.1", *limits)
    with server.connect() as stuck:
        stuck.send(HEADER_1 + b"STUCK_IN_C\n")
        gate.wait()
        assert all_of(stuck).startswith(b"SERVER_ERROR the request was ended")
    server.wait_for(f" client={CLIENT} ")


@pytest.mark.scheme("shared")
def test_a_header_that_is_not_expected_names_the_setting(launch: Launch, scheme):
    server = launch("workshop.py", "--workers", "1")

    _is_not_served(server, HEADER_1 + b"ADD 1 2\n")

    server.wait_for("reason=PROXY header, which is not expected: set proxy_from to")


@pytest.mark.scheme("shared", "dispatch", "accept")
def test_tls_begins_behind_the_header(tmp_path, launch: Launch, scheme):
    authority = Authority(tmp_path)
    certificate = authority.certificate("server", "DNS:localhost")
    options = ("--workers", "1", "--proxy-from", "127.0.0.1", "--tls-cert", str(certificate))
    server = launch("proxied.py", *options)
    context = ssl.create_default_context(cafile=str(authority.path))
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT

    with socket.create_connection(("127.0.0.1", server.port), TIMEOUT) as sock:
        sock.sendall(HEADER_2)
        with context.wrap_socket(sock, server_hostname="localhost") as tls:
            tls.sendall(b"WHO\n")
            assert tls.recv(100).split()[0] == CLIENT.encode()
    _is_not_served(server, b"WHO\n")
    with server.connect() as peer:
        peer.send(HEADER_1 + b"WHO\n")
        assert peer.line().startswith("CLIENT_ERROR this port is for TLS")
