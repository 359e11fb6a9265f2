"""The table of topics for which requests wait: what the master makes of what it finds there."""

from __future__ import annotations

import math
import time

import pytest

from linepool.ipc.board import Board, MasterView, ParkerView
from linepool.ipc.waiting import Waiting, unpacked
from linepool.parker.waiters import Waiters


def published(*topics: tuple[bytes, int, Waiting], requests: int = 9) -> tuple[Board, MasterView]:
    """Return a board on which a parker has published topics, and the master's view of it."""
    board = Board()
    parker = ParkerView(board)
    parker.waiters(requests)
    parker.awaited(topics)
    return board, MasterView(board)


def test_topics_are_read_as_they_were_written():
    jobs = Waiting([b"jobs"], since=2.5, command=b"TAKE")
    _, master = published((b"jobs", 3, jobs), (b"\xff\0", 1, Waiting([b"\xff\0"])))

    found = [(one.topic, one.requests, one.since_ns, one.command) for one in master.awaited.read()]

    assert found == [(b"jobs", 3, 2_500_000_000, b"TAKE"), (b"\xff\0", 1, 0, b"")]
    assert master.awaited.requests == 9


def test_a_table_that_is_being_written_is_not_read():
    board, master = published((b"jobs", 3, Waiting([b"jobs"])))
    board.awaited[64 + 1] ^= 1

    assert master.awaited.read() == []


def test_more_topics_than_there_is_room_for_and_odd_ones_do_no_harm():
    long = Waiting([b"x" * 900], since=time.monotonic() + 1e6, command=b"y" * 90)
    _, master = published(*[(b"x" * 900, 10**12, long)] * 30)

    first, *others = master.awaited.read()

    assert (first.topic, first.command, first.requests) == (b"x" * 160, b"y" * 48, 9)
    assert len(others) == 9


def test_a_parker_that_has_ended_leaves_nothing():
    _, master = published((b"jobs", 3, Waiting([b"jobs"])))
    master.parker_ended()
    assert (master.awaited.requests, master.awaited.read()) == (0, [])

    ParkerView(master.page).waiters(1)  # of the next one, which has not listed topics yet
    assert (master.awaited.requests, master.awaited.read()) == (1, [])


def test_the_topics_with_most_requests_are_found_among_many_with_one():
    table = Waiters()
    for number in range(40):
        table.add(number, Waiting([b"%d" % (number % 30)]), 1)
    for number in range(30, 40):
        table.pop(number)
    for number, topic in enumerate([b"c", b"b", b"a", b"a", b"c", b"a"], 100):
        table.add(number, Waiting([topic, b"%d" % number]), 1)

    found = [(topic, count) for topic, count, _ in table.longest(4)]

    assert found == [(b"a", 3), (b"c", 2), (b"0", 1), (b"1", 1)]
    table.wake(b"a", 2)
    assert [topic for topic, *_ in table.longest(1)] == [b"c"]


@pytest.mark.parametrize("since", [-1.0, math.inf, math.nan, 1e300])
def test_a_worker_cannot_say_a_time_that_is_none(since):
    packed = Waiting([b"jobs"], since=since).packed()

    with pytest.raises(ValueError, match="malformed"):
        unpacked(packed)
