"""Commands and clients that meet a server which is not one of linepool's."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from linepool.client import Client
from linepool.client.errors import ConnectionFailed
from linepool.errors import SetupError
from linepool.operate import remote
from tests.servers import ENVIRONMENT, TIMEOUT

Serve = Callable[[socket.socket], None]


@contextlib.contextmanager
def served(listener: socket.socket, serve: Serve) -> Iterator[None]:
    """Have a function serve each client in a thread, until the client has left."""

    def run() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                with client, contextlib.suppress(OSError):
                    serve(client)

    thread = threading.Thread(target=run)
    with listener:
        thread.start()
        yield
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()


@contextlib.contextmanager
def control_socket(path: Path, serve: Serve) -> Iterator[str]:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    with served(listener, serve):
        yield str(path)


def complaint(place: Path, reply: bytes, command: str) -> str:
    """Return the only line with which a command ends that gets a reply."""

    def serve(client: socket.socket) -> None:
        assert client.recv(65536)
        client.sendall(reply + b"\n")

    with control_socket(place / "control", serve) as path:
        run = subprocess.run(
            [sys.executable, "-P", "-m", "linepool", command, "--control", path],
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT,
        )
    assert run.returncode == 1
    (line,) = run.stderr.splitlines()
    return line


@pytest.mark.parametrize("reply", [b"x" * 100, b"{}", b'{"failure": ""}', b"[]", b'{"version": 1}'])
@pytest.mark.parametrize("command", ["reload", "upgrade"])
def test_a_reload_of_a_foreign_server_is_refused_in_one_line(tmp_path, command, reply):
    line = complaint(tmp_path, reply, command)
    assert line.startswith("linepool: not a linepool server at ")
    assert line.endswith(f"/control: reply {reply.decode()[:40]!r}")


@pytest.mark.parametrize(
    ("command", "reply"),
    [
        ("stats", b'{"commands": [1]}'),
        ("stats", b"{}"),
        ("events", b"[1, 2]"),
        ("events", b'[{"number": 1}]'),
    ],
)
def test_json_of_a_foreign_server_is_refused_in_one_line(tmp_path, command, reply):
    line = complaint(tmp_path, reply, command)
    assert line.startswith("linepool: the reply is not that of a linepool server of this version: ")


def test_a_server_that_sends_byte_by_byte_has_no_more_time_for_its_reply(tmp_path):
    ended = threading.Event()

    def serve(client: socket.socket) -> None:
        while not ended.wait(0.01):
            client.sendall(b"x")

    with control_socket(tmp_path / "control", serve) as path:
        with pytest.raises(SetupError, match=r"cannot reach a server at .*: timed out"):
            remote.order(path, "STATUS json", 0.2)
        ended.set()


def test_the_reply_is_taken_though_the_server_keeps_the_connection(tmp_path):
    ended = threading.Event()

    def serve(client: socket.socket) -> None:
        assert client.recv(65536)
        client.sendall(b"one\ntwo\n")
        ended.wait(TIMEOUT)

    with control_socket(tmp_path / "control", serve) as path:
        assert remote.replies(path, ["A", "B"], TIMEOUT) == ["one", "two"]
        ended.set()


def test_a_line_without_end_does_not_fill_the_memory_of_a_client():
    sent = 0

    def serve(client: socket.socket) -> None:
        nonlocal sent
        while True:
            sent += client.send(b"x" * 65536)

    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    with (
        served(listener, serve),
        Client(f"127.0.0.1:{port}", timeout=TIMEOUT, retries=False) as client,
        pytest.raises(ConnectionFailed, match="does not send framed replies"),
    ):
        client.call("add", 1, 2)
    assert sent < 64 * 1024 * 1024


@pytest.mark.parametrize("name", ["a..b", ".", "é" * 70])
def test_a_name_that_dns_cannot_have_is_a_failed_connection(name):
    with (
        Client(f"{name}:1", retries=False) as client,
        pytest.raises(ConnectionFailed, match=r"cannot connect to .*:1: .*idna"),
    ):
        client.call("add", 1, 2)
