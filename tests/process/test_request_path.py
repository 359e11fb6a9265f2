"""The way of one request through the files of the server, as docs/architecture.md walks through it."""

import os
import socket
import sys
from pathlib import Path

import pytest

from linepool import App
from linepool.ipc import channel
from linepool.ipc.board import Board, WorkerView
from linepool.kernel.listeners import Listener
from linepool.pubsub.subscriptions import Subscriptions
from linepool.settings import Settings
from linepool.worker.context import WorkerContext
from linepool.worker.interrupts import Interrupts
from linepool.worker.loop import Loop
from linepool.worker.orders import Orders
from linepool.worker.safe_point import SafePoint
from tests.servers import ROOT, TIMEOUT

MOST_CROSSINGS = 22


@pytest.fixture
def loop(monkeypatch):
    """A worker's loop in this process, with a listener."""
    monkeypatch.setattr("signal.signal", lambda *_: None)  # those of this process stay
    app = App("sums")

    @app.handler
    def add(a: int, b: int) -> int:
        return a + b

    board = WorkerView(Board(64), 0)
    context = WorkerContext(
        app.freeze(),
        Settings(),
        {},
        board,
        Orders(board, os.getppid()),
        Interrupts(board, 2),
        Subscriptions(None),
        SafePoint(),
    )
    ours, theirs = channel.pair()
    with ours, theirs, socket.create_server(("127.0.0.1", 0)) as sock:
        sock.setblocking(False)
        yield Loop(context, theirs, [Listener(sock)], lambda _: None, lambda: False)


def round_of(loop: Loop) -> None:
    """Wait for an event and serve it."""
    loop._serve_events(loop._wait())


def files_visited(call) -> list[str]:
    """Return the files that a call runs through, one after the other, in linepool and the handler."""
    visited: list[str] = []

    def note(frame, event, _argument) -> None:
        if event == "return":
            frame = frame.f_back
        if event in ("call", "return") and frame is not None:
            name = frame.f_code.co_filename
            if name.startswith((str(ROOT / "linepool"), "<linepool call", __file__)):
                visited.append(name.removeprefix(f"{ROOT}/"))

    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(None)
    return visited


def test_a_warm_request_crosses_few_files(loop):
    address = next(iter(loop._acceptor.listeners.values())).socket.getsockname()
    with socket.create_connection(address, TIMEOUT) as client:
        round_of(loop)  # accepted
        for _ in range(2):
            client.sendall(b"ADD 2 3\r\n")
            round_of(loop)
            assert client.recv(100) == b"5\r\n"
        client.sendall(b"ADD 2 3\r\n")
        events = loop._epoll.poll(TIMEOUT)

        visited = files_visited(lambda: loop._serve_events(events))

        assert client.recv(100) == b"5\r\n"
        (connection,) = loop._table.connections.values()
        loop._table.close(connection)
    way = [visited[0]]
    for name in visited:
        if name != way[-1]:
            way.append(name)
    way = way[1:-1]  # from the loop to the loop
    assert len(way) - 1 <= MOST_CROSSINGS, "\n".join(way)
    assert {Path(name).name for name in way if name.startswith("linepool")} == {
        "loop.py",
        "connection.py",
        "transport.py",
        "worker.py",  # of the board
        "line.py",
        "conversation.py",
    }
