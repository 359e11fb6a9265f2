"""When a connection is old."""

from __future__ import annotations

import itertools
import math

from linepool.worker.age import old_at


def test_without_an_age_none_is():
    assert old_at(0, 100.0, 7) == math.inf


def test_up_to_a_tenth_of_the_age_is_left_out_and_many_are_spread_evenly():
    ages = sorted(old_at(60, 1000.0, cookie) - 1000 for cookie in range(1, 1001))

    assert 54 < ages[0] < 54.1
    assert 59.9 < ages[-1] <= 60
    assert max(later - earlier for earlier, later in itertools.pairwise(ages)) < 0.1


def test_it_is_the_same_in_each_process():
    assert old_at(60, 1000.0, 7) == old_at(60, 1000.0, 7)
