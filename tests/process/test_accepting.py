"""Accepting: listeners that are paused, shut for good and abandoned, in one process."""

import math
import select
import socket
import time

import pytest

from linepool.kernel.acceptor import Doors
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
    doors = Doors([listener], epoll, select.EPOLLIN)
    doors.pause()
    with socket.create_connection(listener.socket.getsockname()) as client:
        doors.look_at_the_clock(time.monotonic())
        assert doors.open_at
        assert epoll.poll(0) == []

        doors.look_at_the_clock(doors.open_at)

        assert doors.open_at == 0.0
        assert epoll.poll(0) == [(listener.socket.fileno(), select.EPOLLIN)]
        accepted = doors.accept(listener)
        assert accepted is not None
        with accepted[0] as served:
            assert accepted[1] == client.getsockname()
            assert served.gettimeout() is None


def test_accept_returns_none_if_no_client_waits(listener, epoll):
    doors = Doors([listener], epoll, select.EPOLLIN)

    assert doors.accept(listener) is None
    assert (doors.open_at, doors.full) == (0.0, 0)


def test_listeners_that_are_shut_for_good_stay_shut_after_a_pause(listener, epoll):
    doors = Doors([listener], epoll, select.EPOLLIN)
    doors.shut(math.inf)
    doors.pause()

    doors.look_at_the_clock(time.monotonic() + 60)

    assert doors.open_at == math.inf


@pytest.mark.parametrize("shut", [False, True])
def test_listeners_that_are_abandoned_are_closed(listener, epoll, shut):
    doors = Doors([listener], epoll, select.EPOLLIN)
    if shut:
        doors.shut(math.inf)

    doors.abandon()

    assert doors.listeners == {}
    assert listener.socket.fileno() == -1
