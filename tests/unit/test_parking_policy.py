"""How long a worker keeps a connection whose client is quiet."""

import pytest

from linepool.ipc.board import Board, WorkerView
from linepool.worker.balance import ParkPolicy

QUICK_NS, SLOW_NS = 50_000, 5_000_000


@pytest.fixture
def board():
    return WorkerView(Board(), 0)


@pytest.fixture
def policy(board):
    return ParkPolicy(board, 0.05)


def test_a_connection_is_parked_after_the_setting(policy):
    assert policy.park_at(100.0, 0.0) == 100.05
    assert policy.park_at(100.0, 0.01) == 100.05


def test_a_client_that_came_back_soon_is_kept_for_twice_as_long_as_it_was_quiet(policy):
    assert policy.park_at(100.0, 0.2) == 100.4


def test_a_client_that_was_away_for_long_is_kept_as_any_other(policy):
    assert policy.park_at(100.0, 0.5) == 100.05


def test_slow_requests_have_connections_parked_early_until_requests_are_quick_again(board, policy):
    def after(seconds, requests, each_ns):
        board.finish(requests, requests * each_ns)
        policy.measure(seconds)
        return policy.park_at(100.0, 0.2)

    assert after(10.0, 100, QUICK_NS) == 100.4
    assert after(11.0, 2, SLOW_NS) == 100.05
    assert after(12.0, 0, 0) == 100.05
    assert after(13.0, 2, QUICK_NS) == 100.4


def test_one_slow_request_among_many_quick_ones_changes_nothing(board, policy):
    board.finish(1, SLOW_NS)
    board.finish(99, 99 * QUICK_NS)
    policy.measure(10.0)

    assert policy.park_at(100.0, 0.2) == 100.4


def test_requests_are_not_measured_between_two_looks(board, policy):
    board.finish(1, QUICK_NS)
    policy.measure(10.0)
    board.finish(1, SLOW_NS)
    policy.measure(10.1)

    assert policy.park_at(100.0, 0.2) == 100.4
