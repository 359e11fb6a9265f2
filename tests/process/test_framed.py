"""Framed requests at a real server: the deadline that a client gives, and streams."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from linepool import App, Session
from linepool.testing import Peer, Server, serve

pytestmark = [pytest.mark.both, pytest.mark.usefixtures("implementation")]
NOT_RUN = "the client's deadline has passed; the request was not run"


@pytest.fixture
def server(implementation):
    app = App()

    @app.handler
    def nap(seconds: float) -> None:
        time.sleep(seconds)

    @app.handler
    def naps(seconds: float) -> Iterator[int]:
        yield 1
        time.sleep(seconds)
        yield 2

    @app.handler
    def count(session: Session) -> int:
        session["n"] = session.get("n", 0) + 1
        return int(session["n"])

    with serve(app, workers=1, request_timeout=5) as server:
        yield server


def error(line: str, head: str = "") -> dict[str, str]:
    """Return what a framed error says."""
    assert line.startswith(head + "- {"), line
    found: dict[str, str] = json.loads(line.removeprefix(head + "- "))
    return found


def check_limits(peer: Peer) -> None:
    late = error(peer.ask("@t=200,i=1 nap 60"), "@1 ")
    while late["text"] == NOT_RUN:  # a busy machine
        late = error(peer.ask("@t=200,i=1 nap 60"), "@1 ")
    assert late["why"] == "deadline"
    limit = float(late["text"].removeprefix("the request took longer than ").removesuffix(" s"))
    assert 0 < limit <= 0.2
    assert peer.ask("@t=60000,i=2 count") == "@2 = 1"
    while NOT_RUN in (first := peer.ask("@t=200,i=3 naps 60")):
        pass
    assert (first, peer.line()) == ("@3 *", "= 1")
    assert error(peer.line())["why"] == "deadline"


def check_waiting(peer: Peer) -> None:
    for first in (b"nap 0.2\n", b"@ nap 0.2\n"):
        peer.send(first + b"@t=100,i=4 count\ncount\n")
        assert peer.line() in ("OK", "= null")
        assert error(peer.line(), "@4 ")["text"] == NOT_RUN
        peer.line()
    peer.send(b"nap 0.2\n")
    peer.send(b"@t=100,i=5 count\ncount\n")
    assert peer.line() == "OK"
    assert error(peer.line(), "@5 ") == {
        "error": "SERVER_ERROR",
        "why": "deadline",
        "text": NOT_RUN,
    }
    assert peer.line() == "4"  # none but those without a deadline were run
    assert error(peer.ask("@t=0 count"))["text"] == NOT_RUN
    assert error(peer.ask("@t=0 fro"))["error"] == "ERROR"


def test_a_client_may_give_a_deadline(server: Server):
    with server.connect() as peer:
        check_limits(peer)
        check_waiting(peer)
