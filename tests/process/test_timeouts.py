"""Clients that are slow, silent, or send too much."""

from __future__ import annotations

import contextlib
import select
import threading
import time

import pytest

from linepool.testing import Peer
from tests.conftest import Launch
from tests.process.connections import reset_on_close
from tests.servers import ServerProcess

pytestmark = pytest.mark.both

BINDS = {"tcp": "127.0.0.1:0", "unix": "unix:sock"}
tcp_and_unix = pytest.mark.parametrize("kind", BINDS)


def start(launch: Launch, kind: str, *options: str) -> ServerProcess:
    """Start a workshop with one worker."""
    return launch("workshop.py", "--workers", "1", *options, bind=(BINDS[kind],))


@tcp_and_unix
def test_a_silent_client_is_closed_after_the_idle_timeout(launch: Launch, kind):
    options = ("--workers", "2", "--idle-timeout", "0.4")
    server = launch("workshop.py", *options, bind=(BINDS[kind],))
    with server.connect() as fresh, server.connect() as served:
        began_at = time.monotonic()
        assert served.ask("ADD 2 3") == "5"

        assert served.line() == ""

        assert time.monotonic() - began_at >= 0.4
        assert fresh.line() == ""


@pytest.mark.parametrize(
    ("kind", "first"), [("tcp", b"ADD 1"), ("unix", b"ADD 1 1\nPUT 100000\n")], ids=["line", "body"]
)
def test_a_request_must_arrive_within_the_read_timeout_from_its_first_byte(
    launch: Launch, kind, first
):
    server = start(launch, kind, "--read-timeout", "0.5")
    with server.connect() as peer:
        began_at = time.monotonic()
        peer.send(first)
        if b"\n" in first:
            assert peer.line() == "2"

        pieces = 0
        while not select.select([peer.socket], [], [], 0.05)[0]:
            peer.send(b"1")
            pieces += 1

        assert peer.line() == "CLIENT_ERROR the request did not arrive within 0.5 s; it was not run"
        assert peer.line() == ""
        assert time.monotonic() - began_at >= 0.5
        assert pieces >= 1


def test_every_request_has_a_read_timeout_of_its_own(launch: Launch):
    server = start(launch, "tcp", "--read-timeout", "0.3")
    with server.connect() as peer:
        # The client is never between two requests: each piece ends with the start of the next one.
        peer.send(b"AD")
        began_at = time.monotonic()
        while time.monotonic() - began_at < 1:
            peer.send(b"D 2 3\nAD")
            assert peer.line() == "5"


@tcp_and_unix
@pytest.mark.scheme("shared", "dispatch")
def test_a_client_that_does_not_read_holds_up_no_other_and_is_disconnected(launch: Launch, kind):
    server = start(launch, kind, "--write-timeout", "0.4")
    with server.connect() as deaf:
        deaf.send(b"BIG 50000000\n")

        assert server.ask("ADD 2 3") == "5"  # there is only one worker

        server.until(lambda state: state["connections"] == {"hot": 0, "parked": 0})


@tcp_and_unix
@pytest.mark.scheme("accept")
def test_a_client_that_does_not_read_is_disconnected_after_the_write_timeout(launch: Launch, kind):
    server = start(launch, kind, "--write-timeout", "0.4")
    with server.connect() as deaf:
        began_at = time.monotonic()
        deaf.send(b"BIG 50000000\n")

        assert server.ask("ADD 2 3") == "5"  # there is only one worker

        assert time.monotonic() - began_at >= 0.4


def test_a_client_that_leaves_during_a_stream_leaves_an_idle_worker(launch: Launch):
    server = start(launch, "tcp")
    with server.connect() as peer:
        peer.send(b"FLOOD\n")
        assert peer.line() == "x" * 1000

    state = server.until(lambda state: state["tally"]["idle"] == 1)
    assert state["workers"][0]["command"] is None
    assert server.ask("ADD 2 3") == "5"


@tcp_and_unix
def test_the_sender_of_an_endless_line_can_read_why_it_is_closed(launch: Launch, kind):
    server = start(launch, kind)
    with server.connect() as peer:
        peer.send(b"ADD 1 1\n")
        send_all(peer, b"x" * 1024 * 1024)

        assert peer.line() == "2"
        assert peer.line() == "CLIENT_ERROR a line may hold 8192 bytes at most"
        assert peer.line() == ""
    assert server.ask("ADD 2 3") == "5"


@tcp_and_unix
def test_the_sender_of_a_body_that_is_too_large_can_read_why_it_is_closed(launch: Launch, kind):
    server = start(launch, kind)
    with server.connect() as peer:
        send_all(peer, b"PUT 2000000\n" + b"x" * 2_000_000 + b"\nADD 1 1\n")

        assert peer.line() == "CLIENT_ERROR a data block may hold 1048576 bytes at most"
        assert peer.line() == ""


@tcp_and_unix
def test_a_large_reply_arrives_whole_whatever_the_client_sends_after_quit(launch: Launch, kind):
    server = start(launch, kind)
    script = b"BIG 2000000\nQUIT\n" + b"ADD 1 1\n" * 200_000
    with server.connect() as peer:
        sender = threading.Thread(target=send_all, args=[peer, script])
        sender.start()

        assert len(peer.line()) == 2_000_000
        assert peer.line() == "OK"
        # The server may stop to read once the sender has paused, which costs no reply.
        with contextlib.suppress(ConnectionResetError):
            assert peer.line() == ""
        sender.join()


def test_large_bodies_and_replies_can_be_in_transit_at_once(launch: Launch):
    server = start(launch, "tcp", "--max-body-bytes", "10000000")
    script = (b"PUT 3000000\n" + b"y" * 3_000_000 + b"\nBIG 3000000\n") * 3
    with server.connect() as peer:
        sender = threading.Thread(target=send_all, args=[peer, script])
        sender.start()

        for _ in range(3):
            assert peer.line() == "3000000"
            assert len(peer.line()) == 3_000_000
        sender.join()


def test_a_client_that_resets_its_connection_leaves_no_trace(launch: Launch):
    server = start(launch, "tcp")
    for words in (b"", b"ADD 1 1\n", b"ADD 1", b"BIG 1000000\n"):
        with server.connect() as peer:
            peer.send(words)
            reset_on_close(peer)

    assert server.ask("ADD 2 3") == "5"
    assert server.stop() == 0
    assert [line for line in server.log if " ERROR " in line or "Traceback" in line] == []


def send_all(peer: Peer, data: bytes) -> None:
    """Send data; the server may close the connection first."""
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        peer.send(data)
