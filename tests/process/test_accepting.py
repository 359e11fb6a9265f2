"""Accepting: listeners that are paused, shut for good and abandoned, in one process."""

import math
import select
import socket
import time

import pytest

from linepool.kernel.acceptor import Acceptor
from linepool.kernel.listeners import Listener


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0)) as sock:
        sock.setblocking(False)
        yield Listener(sock)


@pytest.fixture
def epoll():
    with select.epoll() as epoll:
        yield epoll


def test_a_client_that_connects_during_a_pause_is_accepted_after_it(listener, epoll):
    acceptor = Acceptor([listener], epoll, select.EPOLLIN)
    acceptor.pause()
    with socket.create_connection(listener.socket.getsockname()) as client:
        acceptor.on_timer(time.monotonic())
        assert acceptor.open_at
        assert epoll.poll(0) == []

        acceptor.on_timer(acceptor.open_at)

        assert acceptor.open_at == 0.0
        assert epoll.poll(0) == [(listener.socket.fileno(), select.EPOLLIN)]
        accepted = acceptor.accept(listener)
        assert accepted is not None
        with accepted[0] as served:
            assert accepted[1] == client.getsockname()
            assert served.gettimeout() is None


def test_accept_returns_none_if_no_client_waits(listener, epoll):
    acceptor = Acceptor([listener], epoll, select.EPOLLIN)

    assert acceptor.accept(listener) is None
    assert (acceptor.open_at, acceptor.failures) == (0.0, 0)


def test_listeners_that_are_shut_for_good_stay_shut_after_a_pause(listener, epoll):
    acceptor = Acceptor([listener], epoll, select.EPOLLIN)
    acceptor.stop(math.inf)
    acceptor.pause()

    acceptor.on_timer(time.monotonic() + 60)

    assert acceptor.open_at == math.inf


@pytest.mark.parametrize("shut", [False, True])
def test_listeners_that_are_abandoned_are_closed(listener, epoll, shut):
    acceptor = Acceptor([listener], epoll, select.EPOLLIN)
    if shut:
        acceptor.stop(math.inf)

    acceptor.abandon()

    assert acceptor.listeners == {}
    assert listener.socket.fileno() == -1
