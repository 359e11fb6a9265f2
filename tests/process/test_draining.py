"""The end of the listeners in a graceful stop: no client is connected and then reset."""

from __future__ import annotations

import errno
import select
import selectors
import signal
import socket
import time
from collections.abc import Iterator

import pytest

from linepool.testing import Peer
from tests.conftest import Launch
from tests.servers import TIMEOUT, Gate, ServerProcess, has_ended
from tests.slow_link import SlowLink, slow_link

SCHEMES = ("shared", "dispatch", "accept")
_DELAY = 0.025  # seconds in each direction


@pytest.fixture
def link() -> Iterator[SlowLink]:
    """Give a link with a round trip of 50 ms."""
    with slow_link(_DELAY) as link:
        yield link


class Newcomers:
    """Clients that connect one after another and ask one thing each, without a thread for each.

    Attributes:
        outcomes: What became of those that were connected: the reply, or why there is none.
        refused: How many were refused.
    """

    def __init__(self, address: tuple[str, int]) -> None:
        self.outcomes: list[str] = []
        self.refused = 0
        self._address = address
        self._selector = selectors.DefaultSelector()
        self._connected: set[socket.socket] = set()

    def connect(self) -> None:
        """Begin a handshake."""
        sock = socket.socket()
        sock.setblocking(False)
        sock.connect_ex(self._address)
        self._selector.register(sock, selectors.EVENT_WRITE)

    def turn(self, seconds: float) -> None:
        """Go on with those for which something has happened."""
        for key, event in self._selector.select(seconds):
            sock = key.fileobj
            assert isinstance(sock, socket.socket)
            try:
                if event & selectors.EVENT_WRITE:
                    error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                    if error:
                        self.refused += 1
                        self._forget(sock)
                        continue
                    self._connected.add(sock)
                    sock.send(b"ADD 2 3\n")
                    self._selector.modify(sock, selectors.EVENT_READ)
                else:
                    self.outcomes.append(sock.recv(100).decode())
                    self._forget(sock)
            except OSError as error:
                self.outcomes.append(str(error))
                self._forget(sock)

    def finish(self) -> None:
        """Wait until all have an answer."""
        give_up_at = time.monotonic() + TIMEOUT
        while self._selector.get_map():
            assert time.monotonic() < give_up_at
            self.turn(0.1)

    def _forget(self, sock: socket.socket) -> None:
        self._selector.unregister(sock)
        sock.close()


@pytest.mark.scheme(*SCHEMES)
@pytest.mark.linux("newcomers are not turned away during a stop")
def test_no_client_in_a_handshake_is_lost_by_a_stop(
    launch: Launch, link: SlowLink, gate: Gate, scheme
):
    with link.server_side():
        workers = "16" if scheme == "accept" else "2"  # there each client takes up one
        bind = (f"{link.address}:0",)
        server = launch("workshop.py", "--workers", workers, bind=bind, warm=False)
    with link.client_side(), Peer(server.address) as busy:
        busy.send(b"HOLD x\n")
        gate.wait()
        newcomers = Newcomers((link.address, server.port))
        for number in range(200):
            if number == 60:
                server.send(signal.SIGTERM)
            newcomers.connect()
            newcomers.turn(0.002)
        newcomers.finish()
        gate.open()
        assert busy.line() == "x"

    assert set(newcomers.outcomes) == {"5\n"}
    assert newcomers.refused > 0
    assert server.ended() == 0


@pytest.mark.scheme(*SCHEMES)
@pytest.mark.linux("it does")
def test_a_busy_worker_keeps_no_listener_open_during_a_stop(launch: Launch, gate: Gate, scheme):
    server = launch("workshop.py", "--workers", "1", bind=("127.0.0.1:0", "[::1]:0", "unix:sock"))
    with server.connect() as busy:
        busy.send(b"HOLD x\n")
        gate.wait()

        server.send(signal.SIGTERM)
        server.wait_for("listeners closed")
        assert server.order("STOP") == "stopping gracefully"  # changes nothing

        for listener in range(3):
            with pytest.raises((ConnectionRefusedError, FileNotFoundError)):
                server.connect(listener)
        successor = launch("workshop.py", "--workers", "1", bind=tuple(server.addresses))
        assert sums(successor) == ["5"] * 3
        gate.open()
        assert busy.line() == "x"
        assert server.ended() == 0
    assert server.text.count("listeners closed") == 1
    assert sums(successor) == ["5"] * 3


def sums(server: ServerProcess) -> list[str]:
    """Return a reply from each of three listeners."""
    replies = []
    for listener in range(3):
        with server.connect(listener) as peer:
            replies.append(peer.ask("ADD 2 3"))
    return replies


@pytest.mark.parametrize("address", ["127.0.0.1:0", "[::1]:0"])
@pytest.mark.scheme("accept")
@pytest.mark.linux("newcomers are not turned away during a stop")
def test_newcomers_wait_outside_while_the_backlog_is_served(
    launch: Launch, gate: Gate, scheme, address
):
    server = launch("workshop.py", "--workers", "1", bind=(address,))
    with server.connect() as busy, server.connect() as queued:
        busy.send(b"HOLD x\n")
        gate.wait()
        queued.send(b"ADD 2 3\n")

        server.order("STOP")
        with socket.socket(queued.socket.family) as newcomer:
            newcomer.setblocking(False)
            newcomer.connect_ex(queued.socket.getpeername())
            gate.open()
            assert [busy.line(), queued.line()] == ["x", "5"]
            server.wait_for("listeners closed")
            # Its SYN was dropped; it sends another one after a second, and that is refused.
            assert select.select([], [newcomer], [], TIMEOUT)[1]
            error = newcomer.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            assert error == errno.ECONNREFUSED
    assert server.ended() == 0


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX])
@pytest.mark.scheme(*SCHEMES)
def test_a_listener_of_another_program_outlives_a_stop(
    launch: Launch, tmp_path, gate: Gate, family, scheme
):
    with socket.socket(family) as given:
        given.bind(("127.0.0.1", 0) if family == socket.AF_INET else f"{tmp_path}/given")
        given.listen()
        number = given.fileno()
        server = launch(
            "workshop.py", "--workers", "1", bind=(f"fd://{number}",), pass_fds=[number]
        )
        with server.connect() as busy, server.connect() as queued:
            busy.send(b"HOLD x\n")
            gate.wait()
            queued.send(b"ADD 2 3\n")
            server.send(signal.SIGTERM)
            server.wait_for("stopping")
            gate.open()
            assert [busy.line(), queued.line()] == ["x", "5"]
        assert server.ended() == 0
        assert "listeners closed" not in server.text

        with server.connect() as later:
            accepted = given.accept()[0]
            accepted.close()
            assert later.line() == ""


@pytest.mark.scheme(*SCHEMES)
def test_stopped_processes_free_the_address_when_the_master_is_killed(launch: Launch, scheme):
    server = launch("workshop.py", "--workers", "2")
    processes = server.watch()
    for pidfd in processes.values():
        signal.pidfd_send_signal(pidfd, signal.SIGSTOP)

    server.send(signal.SIGKILL)

    assert all(has_ended(pidfd) for pidfd in processes.values())
    assert launch("workshop.py", "--workers", "1", bind=(server.address,)).ask("ADD 2 3") == "5"
