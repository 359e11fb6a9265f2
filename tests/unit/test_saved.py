"""Which connections of a dead worker are saved: its descriptors and its slot are those of this process."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator

import pytest

from linepool.ipc.board import BOUND, Board, MasterView, WorkerView
from linepool.kernel.pidfd import OpenFiles
from linepool.kernel.sockets import is_untouched, socket_cookie, taken_bytes
from linepool.master.saved import SavedSockets


class Holding:
    """A worker with one connection, in place 0, of which 3 bytes were read."""

    def __init__(self, owner: OpenFiles, kind: str) -> None:
        board = Board(4)
        self.owner, self.slot, self.worker = owner, MasterView(board).slot(0), WorkerView(board, 0)
        self.client, self.sock = connected() if kind == "tcp" else socket.socketpair()
        self.client.send(b"abc")
        assert self.sock.recv(3) == b"abc"
        self.cookie = socket_cookie(self.sock)
        self.show()
        self.worker.rests(0, 3)

    def show(self, more: int = 0) -> None:
        """Publish it."""
        self.worker.publish(0, self.sock.fileno() + 1 + more, self.cookie)

    def serve(self) -> None:
        """Publish that it is being served."""
        self.worker.serving(self.cookie, self.sock.fileno() + 1)

    def saved(self, *, has_died: bool = True) -> list[bool]:
        """Return for each connection that is saved whether it is new."""
        saved = SavedSockets(self.owner, self.slot, has_died=has_died).take()
        for one in saved:
            one.sock.close()
        ours = {socket_cookie(self.sock)} if not saved else set()
        assert ours <= {self.cookie}
        return [one.is_new for one in saved]


def connected() -> tuple[socket.socket, socket.socket]:
    """Return the two ends of a TCP connection, the server's last."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        return client, listener.accept()[0]


@pytest.fixture
def owner() -> Iterator[OpenFiles]:
    pidfd = os.pidfd_open(os.getpid())
    yield OpenFiles(os.getpid(), pidfd)
    os.close(pidfd)


@pytest.fixture(params=["tcp", "unix"])
def holding(request: pytest.FixtureRequest, owner: OpenFiles) -> Iterator[Holding]:
    holding = Holding(owner, request.param)
    with holding.client, holding.sock:
        yield holding


tcp = pytest.mark.parametrize("holding", ["tcp"], indirect=True)
unix = pytest.mark.parametrize("holding", ["unix"], indirect=True)


@pytest.mark.parametrize("has_died", [True, False])
def test_a_connection_at_rest_is_saved_with_what_was_not_read(holding: Holding, has_died: bool):
    holding.client.send(b"not read")
    assert holding.saved(has_died=has_died) == [False]


def test_one_that_the_worker_has_bound_to_itself_is_not(holding: Holding):
    holding.show(BOUND)
    assert holding.saved() == []


def test_one_that_is_hidden_is_not(holding: Holding):
    holding.worker.hide(0)
    assert holding.saved() == []


def test_one_that_is_being_passed_is_saved_for_the_parker_knows_whether_it_has_it(holding: Holding):
    holding.worker.goes(0)
    assert holding.saved() == [False]


def test_one_with_another_cookie_is_not(holding: Holding):
    holding.worker.publish(0, holding.sock.fileno() + 1, holding.cookie + 1)
    assert holding.saved() == []


@tcp
def test_one_of_which_more_was_read_than_in_its_turns_is_not(holding: Holding):
    holding.client.send(b"de")
    assert holding.sock.recv(1) == b"d"
    assert holding.saved() == []


@tcp
def test_one_that_is_being_served_is_saved_if_nothing_was_read_of_it(holding: Holding):
    holding.serve()
    assert holding.saved() == [False]
    assert holding.saved(has_died=False) == []  # its client is told

    holding.client.send(b"de")
    assert holding.sock.recv(2) == b"de"
    assert holding.saved() == []


@unix
def test_one_of_a_unix_socket_that_is_being_served_is_not(holding: Holding):
    holding.serve()
    assert holding.saved() == []


@tcp
def test_a_connection_that_nobody_has_touched_is_new(holding: Holding):
    client, sock = connected()
    with client, sock:
        client.send(b"not read")
        assert sorted(holding.saved()) == [False, True]
        sock.send(b"hello")
        assert holding.saved() == [False]


@tcp
def test_copies_that_are_not_wanted_are_closed(holding: Holding):
    client, sock = connected()
    with client:
        saved = SavedSockets(holding.owner, holding.slot, has_died=True)
        sock.close()
        client.settimeout(0.1)
        with contextlib.suppress(TimeoutError):
            assert client.recv(1) == b"?"  # a copy keeps it open
        client.settimeout(10)
        saved.close()
        assert client.recv(1) == b""


def test_what_was_read_of_a_connection_is_counted():
    client, sock = connected()
    with client, sock:
        assert (taken_bytes(sock), is_untouched(sock)) == (0, True)
        client.send(b"abcdef")
        assert (taken_bytes(sock), is_untouched(sock)) == (0, True)
        assert sock.recv(2) == b"ab"
        assert (taken_bytes(sock), is_untouched(sock)) == (2, False)
        client.shutdown(socket.SHUT_WR)
        assert sock.recv(10) == b"cdef"
        assert sock.recv(10) == b""
        assert taken_bytes(sock) == 6


def test_one_that_the_client_has_ended_without_a_word_is_untouched():
    client, sock = connected()
    with client, sock:
        client.shutdown(socket.SHUT_WR)
        assert is_untouched(sock)


def test_what_is_no_connection_of_tcp_counts_nothing():
    client, sock = socket.socketpair()
    with client, sock, socket.create_server(("127.0.0.1", 0)) as listener:
        assert (taken_bytes(sock), is_untouched(sock)) == (None, False)
        assert not is_untouched(listener)
