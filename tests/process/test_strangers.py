"""Clients of another protocol at a server: what is known of their first bytes travels with them."""

from __future__ import annotations

import pytest

from tests.conftest import Launch
from tests.process.connections import PARKING_SCHEMES, until_parked

pytestmark = pytest.mark.both


@pytest.mark.scheme("shared", "dispatch", "accept")
def test_an_http_client_is_refused_and_logged(launch: Launch, scheme):
    server = launch("workshop.py", "--workers", "1")
    with server.connect() as peer:
        peer.send(b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 5\r\n\r\nPID\r\n")
        assert peer.rest() == b""
    server.wait_for("rejected connection peer=127.0.0.1:")


@pytest.mark.scheme(*PARKING_SCHEMES)
def test_a_proxy_header_is_refused_if_it_arrives_in_two_workers(launch: Launch, scheme):
    server = launch("workshop.py", "--workers", "2", "--park-after", "0.005")
    with server.connect() as peer:
        peer.send(b"\r\n\r\n")
        until_parked(server, 1)
        peer.send(b"\0\r\nQUIT\n\x20\0\0\0PID\r\n")
        assert peer.rest() == b""
    server.wait_for("reason=PROXY header")
