"""Schedules of all processes over a simulated kernel: no invariant breaks, and faults are found."""

from __future__ import annotations

import pytest

from tests.simulation.faults import FAULTS
from tests.simulation.run import replay, search, shown_fault
from tests.simulation.world import KINDS

_SCHEDULES = 205  # of each world
_MOST = 1000  # until a fault must be found, from a seed on that has found it
_TRIES = 10  # for a shorter form of the schedule that shows it


@pytest.mark.parametrize("world", KINDS)
def test_in_no_schedule_does_an_invariant_break(world):
    found = search(world, range(_SCHEDULES), most=1)

    assert not found.failed, replay(world, *found.failed, verbose=False)
    assert found.count == _SCHEDULES


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_that_is_put_back_is_found_and_shown(name):
    fault = FAULTS[name]
    seed, text = shown_fault(name, _MOST, _TRIES)

    assert seed >= 0, f"not found in {_MOST} schedules"
    assert "VIOLATION: " in text
    assert fault.shows in text, text


def test_a_schedule_is_the_same_each_time_it_is_run():
    first, second = (replay("all", 3, verbose=True) for _ in range(2))

    assert "client 1 connects" in first
    assert first == second
