"""For how long a worker keeps a client that is quiet."""

import pytest

from linepool.ipc.board import Board
from linepool.worker.park_policy import Cooling

QUICK_NS, SLOW_NS = 50_000, 5_000_000


@pytest.fixture
def slot():
    return Board().slots[0]


@pytest.fixture
def cooling(slot):
    return Cooling(slot.words, 0.05)


def test_any_client_is_cold_after_the_setting(cooling):
    assert cooling.cold_at(100.0, 0.0) == 100.05
    assert cooling.cold_at(100.0, 0.01) == 100.05


def test_who_came_back_soon_is_kept_for_twice_as_long_as_it_was_quiet(cooling):
    assert cooling.cold_at(100.0, 0.2) == 100.4


def test_who_was_away_for_long_is_kept_as_any_other(cooling):
    assert cooling.cold_at(100.0, 0.5) == 100.05


def test_where_requests_take_long_all_are_parked_early_until_they_are_quick_again(slot, cooling):
    def after(seconds, requests, each_ns):
        slot.finish(requests, requests * each_ns)
        cooling.look(seconds)
        return cooling.cold_at(100.0, 0.2)

    assert after(10.0, 100, QUICK_NS) == 100.4
    assert after(11.0, 2, SLOW_NS) == 100.05
    assert after(12.0, 0, 0) == 100.05
    assert after(13.0, 2, QUICK_NS) == 100.4


def test_one_slow_request_among_many_quick_ones_changes_nothing(slot, cooling):
    slot.finish(1, SLOW_NS)
    slot.finish(99, 99 * QUICK_NS)
    cooling.look(10.0)

    assert cooling.cold_at(100.0, 0.2) == 100.4


def test_requests_are_not_judged_in_the_middle_of_a_look(slot, cooling):
    slot.finish(1, QUICK_NS)
    cooling.look(10.0)
    slot.finish(1, SLOW_NS)
    cooling.look(10.1)

    assert cooling.cold_at(100.0, 0.2) == 100.4
