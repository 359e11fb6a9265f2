"""The control socket, with commands whose replies come later."""

from __future__ import annotations

import selectors
import socket
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import ExitStack
from pathlib import Path

import pytest

from linepool import App
from linepool.errors import ClientError
from linepool.operate.control import Control


class Server:
    """A control socket with the commands NOW and LATER, and its loop."""

    def __init__(self, path: Path) -> None:
        self.waiting: list[Future[object]] = []
        app = App("test")
        app.handler("NOW")(lambda: "now")
        app.handler("LATER")(self._later)
        self.path = str(path)
        self.selector = selectors.DefaultSelector()
        self.control = Control(app, self.path)
        self.control.open(self.selector)
        self.clients = ExitStack()
        self.closing = ExitStack()
        self.closing.callback(self.control.close)

    def _later(self) -> Future[object]:
        self.waiting.append(Future())
        return self.waiting[-1]

    def turn(self) -> None:
        """Serve what is ready, until there is nothing more."""
        while ready := self.selector.select(0):
            for key, _ in ready:
                key.data()

    def client(self, data: bytes, *, ends: bool = False) -> socket.socket:
        """Connect, send a request, and serve it."""
        sock = self.clients.enter_context(socket.socket(socket.AF_UNIX))
        sock.setblocking(False)
        sock.connect(self.path)
        sock.sendall(data)
        if ends:
            sock.shutdown(socket.SHUT_WR)
        self.turn()
        return sock


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """Give a control socket, which is closed at the end."""
    server = Server(tmp_path / "control")
    with server.clients, server.selector, server.closing:
        yield server


def has_reply(client: socket.socket) -> bool:
    """Whether there is anything to read."""
    try:
        return bool(client.recv(100, socket.MSG_PEEK))
    except BlockingIOError:
        return False


def test_a_reply_comes_when_it_is_there_and_others_are_served_meanwhile(server):
    first = server.client(b"LATER\nNOW\n")
    second = server.client(b"LATER\n", ends=True)
    assert server.client(b"NOW\n").recv(100) == b"now\n"
    assert not has_reply(first)

    server.waiting[1].set_result(["one", "two"])
    server.turn()
    assert second.recv(100) == b"one\ntwo\nEND\n"
    assert second.recv(100) == b""
    assert not has_reply(first)

    server.waiting[0].set_result("done")
    server.turn()
    assert first.recv(100) == b"done\nnow\n"


def test_a_failure_is_an_error_reply_as_of_a_handler(server):
    client = server.client(b"LATER\nLATER\n")

    server.waiting[0].set_exception(ClientError("refused"))
    server.turn()
    server.waiting[1].set_exception(OSError("unexpected"))
    server.turn()

    refused, failed = client.recv(1000).splitlines()
    assert refused == b"CLIENT_ERROR refused"
    assert failed.startswith(b"SERVER_ERROR internal error, id ")


def test_a_client_that_has_left_breaks_nothing(server):
    server.client(b"LATER\n").close()
    server.client(b"LATER\n", ends=True).close()
    for later in server.waiting:
        later.set_result("x" * 100_000)
    server.turn()

    assert server.client(b"NOW\n").recv(100) == b"now\n"


def test_a_client_that_waits_is_dropped_only_if_all_do(server):
    waits = server.client(b"LATER\n")
    for _ in range(20):
        assert server.client(b"NOW\n").recv(100) == b"now\n"
    server.waiting[0].set_result("done")
    assert waits.recv(100) == b"done\n"

    all_wait = [server.client(b"LATER\n") for _ in range(20)]
    assert server.client(b"NOW\n").recv(100) == b"now\n"
    for later in server.waiting[1:]:
        later.set_result("late")
    assert sum(has_reply(client) for client in all_wait) == 15


def test_clients_that_wait_are_told_when_the_server_ends(server):
    client = server.client(b"LATER\n")

    server.closing.close()

    assert client.recv(100) == b"SERVER_ERROR the server has stopped\n"
