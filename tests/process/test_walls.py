"""An exception out of a protocol ends the one connection that it belongs to, and the log names it."""

import socket

import pytest

from tests.conftest import Launch
from tests.process.connections import PARKING_SCHEMES
from tests.servers import HANDLERS

pytestmark = pytest.mark.both

RAISED = {
    b"FEED!\n": "LookupError: feed",
    b"NEXT!\n": "MemoryError: next_request",
    b"ENCODE!\n": "ZeroDivisionError: encode_error",
    b"INTERRUPT!\n": "KeyboardInterrupt: feed",
    b"CANCEL!\n": "CancelledError: next_request",
    b"TEXT\n": "TypeError: Fragile must encode replies as bytes, not str",
    b"": "AttributeError: eof",
}


@pytest.mark.scheme("shared", "accept")
@pytest.mark.parametrize("sent", RAISED, ids=lambda sent: sent.decode().rstrip("!\n") or "eof")
def test_an_exception_out_of_a_protocol_ends_its_connection_alone(launch: Launch, scheme, sent):
    workers = "2" if scheme == "accept" else "1"
    server = launch(f"{HANDLERS}/fragile.py:app", "--workers", workers)
    with server.connect() as neighbour:
        worker = neighbour.ask("PID")
        with server.connect() as peer:
            victim = peer.ask("PID")
            if sent:
                peer.send(sent)
            else:
                peer.socket.shutdown(socket.SHUT_WR)

            assert peer.line() == ""

        assert neighbour.ask("PID") == worker
        with server.connect() as another:
            assert another.ask("PID") == victim
        server.wait_for("connection closed: its protocol failed peer=127.0.0.1:")
        server.wait_for(RAISED[sent])
        assert server.status()["counters"]["crashes"] == 0


@pytest.mark.scheme("shared", "accept")
@pytest.mark.parametrize(
    ("place", "sent", "event"),
    [
        ("on_connect", "", "CancelledError: on_connect"),
        ("on_disconnect", "", "on_disconnect failed"),
        ("on_error", "FAIL", "on_error failed"),
    ],
)
def test_what_a_hook_raises_that_is_not_an_exception_ends_no_worker(
    launch: Launch, scheme, place, sent, event
):
    environment = {"CANCELLED_IN": place}
    target = f"{HANDLERS}/cancelled.py:app"
    server = launch(target, "--workers", "1", environment=environment)
    for _ in range(2):
        with server.connect() as peer:
            if sent or place == "on_connect":
                assert "internal error, id" in (peer.ask(sent) if sent else peer.line())
        server.wait_for(event)
    assert server.status()["counters"]["crashes"] == 0


def test_a_reply_that_cannot_be_made_is_an_internal_error(launch: Launch):
    server = launch(f"{HANDLERS}/cancelled.py:app", "--workers", "1")
    with server.connect() as peer:
        worker = peer.ask("PID")
        assert peer.ask("TEXT").startswith("SERVER_ERROR internal error, id ")
        server.wait_for("TypeError: Reply.raw must be bytes, not str")
        assert peer.ask("REFUSE").startswith("SERVER_ERROR internal error, id ")
        server.wait_for("ValueError: no text")
        assert peer.ask("PID") == worker


@pytest.mark.scheme(*PARKING_SCHEMES)
@pytest.mark.parametrize("command", ["BOUNDARY!", "SWELL!", "CANCELLED!"])
def test_a_connection_whose_state_cannot_be_passed_stays_in_its_worker(
    launch: Launch, scheme, command
):
    server = launch(f"{HANDLERS}/fragile.py:app", "--workers", "2", "--park-after", "0.005")
    with server.connect() as peer:
        assert peer.ask(command).startswith("ERROR ")

        server.wait_for("connection cannot be handed off peer=127.0.0.1:")
        worker = peer.ask("PID")
        assert [peer.ask("PID") for _ in range(3)] == [worker] * 3
        assert server.status()["counters"]["crashes"] == 0
