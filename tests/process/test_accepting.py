"""Listeners that are shut for a while, in one process."""

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


def test_who_comes_while_they_are_shut_is_let_in_later(listener, epoll):
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


def test_there_may_be_nobody_after_all(listener, epoll):
    doors = Doors([listener], epoll, select.EPOLLIN)

    assert doors.accept(listener) is None
    assert (doors.open_at, doors.full) == (0.0, 0)


def test_what_is_shut_for_good_is_not_opened_after_a_pause(listener, epoll):
    doors = Doors([listener], epoll, select.EPOLLIN)
    doors.shut(math.inf)
    doors.pause()

    doors.look_at_the_clock(time.monotonic() + 60)

    assert doors.open_at == math.inf


def test_they_can_be_abandoned_open_and_shut(listener, epoll):
    for shut in (False, True):
        copy = Listener(listener.socket.dup())
        doors = Doors([copy], epoll, select.EPOLLIN)
        if shut:
            doors.shut(math.inf)

        doors.abandon()

        assert doors.listeners == {}
        assert copy.socket.fileno() == -1
