"""The parker's delivery in two phases: it keeps a copy until a worker has begun, or given back."""

from __future__ import annotations

import contextlib
import os
import socket

import pytest

from linepool.ipc import channel as channels
from linepool.ipc.board import Board, ParkerView, WorkerView
from linepool.ipc.messages import ConnectionState, PassedConnection, Returned
from linepool.parker.delivery import Delivery


@pytest.fixture
def ends():
    """The parker's and the worker's end of a channel."""
    ours, theirs = channels.pair()
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def page():
    return Board()


@pytest.fixture
def delivery(page, ends):
    """A delivery with one worker, which wants two connections that wait."""
    delivery = Delivery(ParkerView(page))
    worker = delivery.add_worker(0, ends[0])
    for _ in range(2):
        with socket.socket() as sock:
            delivery.queue(os.dup(sock.fileno()), ConnectionState(0, 1.0, 1.0))
    delivery.give_share(worker)
    delivery.give_share(worker)
    yield delivery
    for given in worker.given:
        os.close(given.descriptor)


def received(channel: socket.socket) -> list[int]:
    """Return the numbers of the connections that a worker has received."""
    numbers = []
    while isinstance(message := channels.receive(channel), PassedConnection):
        os.close(message.descriptor)
        numbers.append(message.number)
    return numbers


def is_open(descriptor: int) -> bool:
    with contextlib.suppress(OSError):
        os.fstat(descriptor)
        return True
    return False


def test_copies_are_kept_until_the_worker_has_begun(delivery, page, ends):
    copies = [given.descriptor for given in delivery.workers[0].given]
    assert received(ends[1]) == [1, 2]

    delivery.confirm(heard=True)
    assert [is_open(copy) for copy in copies] == [True, True]

    WorkerView(page, 0).has_begun_with(1)
    delivery.confirm(heard=True)
    assert [is_open(copy) for copy in copies] == [False, True]


def test_a_returned_connection_is_not_taken_for_begun_before_its_message_is_read(
    delivery, page, ends
):
    worker = delivery.workers[0]
    returned = worker.given[0].descriptor
    assert received(ends[1]) == [1, 2]
    channels.send(ends[1], Returned(1))
    WorkerView(page, 0).has_begun_with(2)

    delivery.confirm(heard=True)
    assert is_open(returned)

    message = channels.receive(ends[0])
    assert message == Returned(1)
    delivery.take_back(worker, 1)
    delivery.confirm(heard=True)
    assert is_open(returned)
    assert len(delivery) == 1
    assert not worker.given
    os.close(returned)


def test_it_is_not_settled_before_what_a_worker_has_handed_off_is_read(page, ends):
    delivery = Delivery(ParkerView(page))
    delivery.add_worker(0, ends[0])
    seen = [delivery.is_settled]

    with socket.socket() as sock:
        channels.send(ends[1], PassedConnection(ConnectionState(0, 1.0, 1.0), sock.fileno()))
    seen.append(delivery.is_settled)

    message = channels.receive(ends[0])
    assert message is not None
    channels.close_descriptor(message)
    assert [*seen, delivery.is_settled] == [True, False, True]
