"""Recycling: the most worn workers may be replaced, never more than a third at once."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from linepool.ipc.board import Board, MasterView, WorkerView
from linepool.master.recycler import Recycler
from linepool.pool.recycling import Wear, replaceable
from linepool.pool.scoreboard import WorkerState
from linepool.pool.status import State
from linepool.settings import Settings


def worn(*shares: float, leaving: int = 0, starting: int = 0) -> list[Wear]:
    """Return a pool of workers: some with a share of wear, some leaving, some starting."""
    pool = [Wear(slot, share, away=False, settled=False) for slot, share in enumerate(shares)]
    pool += [Wear(100 + slot, 1.0, away=True, settled=True) for slot in range(leaving)]
    pool += [Wear(200 + slot, 0.0, away=True, settled=False) for slot in range(starting)]
    return pool


@pytest.mark.parametrize(
    ("pool", "chosen"),
    [
        (worn(), []),
        (worn(0.0), [0]),
        (worn(0.1, 0.2), [1]),
        (worn(0.1, 0.2, 0.3, 0.4, 0.5), [4]),
        (worn(0.6, 0.5, 0.4, 0.3, 0.2, 0.1), [0, 1]),
        (worn(0.1, 5.0, 0.2, 3.0, 0.3, 2.0, 0.4, 0.5, 0.6), [1, 3, 5]),
        (worn(0.1, 0.2, leaving=1), []),
        (worn(0.1, 0.2, 0.3, 0.4, leaving=2), []),
        (worn(0.1, 0.2, 0.3, 0.4, 0.5, leaving=1), [4]),
        # A starting worker serves no requests yet, so the others must stay.
        (worn(0.1, 0.2, starting=1), []),
        (worn(0.1, 0.2, 0.3, 0.4, starting=2), []),
        (worn(0.1, 0.2, 0.3, 0.4, 0.5, starting=1), [4]),
        (worn(starting=3), []),
        (worn(leaving=1, starting=1), []),
        # The only worker of a pool may be replaced before it is ready.
        (worn(starting=1), [200]),
    ],
)
def test_the_most_worn_may_be_replaced_up_to_a_third(pool, chosen):
    assert replaceable(pool) == chosen


wears = st.lists(
    st.tuples(st.floats(0, 10), st.sampled_from([(False, False), (True, False), (True, True)])),
    max_size=40,
).map(lambda kinds: [Wear(slot, share, *kind) for slot, (share, kind) in enumerate(kinds)])


@given(wears)
def test_never_more_than_a_third_is_away_or_replaceable(pool):
    chosen = set(replaceable(pool))

    away = {wear.slot for wear in pool if wear.away}
    if chosen:
        assert len(away | chosen) <= max(1, len(pool) // 3)
    assert not chosen & {wear.slot for wear in pool if wear.settled}


@given(wears)
def test_the_third_is_used_up_by_the_most_worn_workers(pool):
    chosen = set(replaceable(pool))

    away = {wear.slot for wear in pool if wear.away}
    waiting = [wear for wear in pool if not wear.settled and wear.slot not in chosen]
    shares = [wear.share for wear in pool if wear.slot in chosen]
    assert max([wear.share for wear in waiting], default=0) <= min(shares, default=10)
    if len(away | chosen) < max(1, len(pool) // 3):
        assert waiting == []


# -- permits


def recycler(**settings: Any) -> tuple[Recycler, MasterView]:
    """Return a recycler and its board."""
    board = MasterView(Board())
    return Recycler(Settings(**{"scheme": "accept", **settings}), board), board


def serve(board: MasterView, slot: int, requests: int) -> None:
    """Have the worker in a slot serve some more requests."""
    WorkerView(board.page, slot).finish(requests, 0)


def worker(slot: int, state: State | None = State.IDLE, **more: Any) -> WorkerState:
    """Return the state of a worker."""
    return WorkerState(slot, 1000 + slot, 1, 0, state, **more)


@given(st.integers(1, 10**9), st.floats(0, 1))
def test_the_number_of_requests_is_the_setting_plus_at_most_the_jitter(number, jitter):
    one, _ = recycler(max_requests=number, max_requests_jitter=jitter)

    assert all(number <= one.spawned(slot) <= number * (1 + jitter) + 1 for slot in range(5))


def test_workers_get_different_numbers_of_requests():
    one, _ = recycler(max_requests=1000)

    assert len({one.spawned(slot) for slot in range(50)}) > 20


def test_without_limits_no_permit_is_granted():
    one, board = recycler()
    assert [one.spawned(slot) for slot in range(3)] == [0, 0, 0]

    assert one.turn([worker(slot) for slot in range(3)]) == []

    assert [board.slot(slot).permit for slot in range(3)] == [0, 0, 0]
    assert one.due_at == float("inf")


def test_permits_go_to_the_workers_nearest_to_their_number_and_stay_there():
    one, board = recycler(max_requests=100, max_requests_jitter=0)
    workers = [worker(slot) for slot in range(6)]
    for slot in range(6):
        one.spawned(slot)
        serve(board, slot, 10 * slot)

    one.turn(workers)
    first = [board.slot(slot).permit for slot in range(6)]
    serve(board, 0, 99)
    one.turn(workers)
    second = [board.slot(slot).permit for slot in range(6)]

    assert first == second == [0, 0, 0, 0, 1, 1]


def test_a_permit_moves_from_a_worker_kept_busy_by_a_client_to_one_that_needs_it():
    one, board = recycler(max_requests=100, max_requests_jitter=0)
    workers = [worker(0, State.TAKEN), worker(1), worker(2)]
    for slot in range(3):
        one.spawned(slot)
    board.slot(0).permit = True

    one.turn(workers)
    not_needed = [board.slot(slot).permit for slot in range(3)]
    serve(board, 2, 100)
    one.turn(workers)
    revoked = [board.slot(slot).permit for slot in range(3)]
    one.turn(workers)
    granted = [board.slot(slot).permit for slot in range(3)]

    assert not_needed == [1, 0, 0]
    assert revoked == [0, 0, 0]
    assert granted == [0, 0, 1]


def test_an_exited_worker_was_recycled_if_it_had_reached_its_number_with_a_permit():
    one, board = recycler(max_requests=5, max_requests_jitter=0)
    one.spawned(0)

    answers = []
    for requests, permit in ((5, True), (7, True), (4, True), (5, False)):
        board.slot(0).clear()
        serve(board, 0, requests)
        board.slot(0).permit = permit
        answers.append(one.was_recycled(0))

    assert answers == [True, True, False, False]
