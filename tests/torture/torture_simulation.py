"""Many schedules of the simulation, with other seeds in each run; see docs/reliability.md."""

from __future__ import annotations

import time

import pytest

from tests.simulation.run import replay, search
from tests.simulation.world import KINDS

_AT_ONCE = 200


@pytest.fixture
def schedules(request: pytest.FixtureRequest) -> int:
    """Give how many schedules are run, of all worlds together, in the time that there is."""
    return int(request.config.getoption("--schedules"))


@pytest.mark.parametrize("world", KINDS)
def test_no_schedule_breaks_an_invariant(world, schedules, seconds):
    first = time.time_ns() // 1_000_000_000 * 10_000_000
    began, count = time.monotonic(), 0
    ends = began + seconds / len(KINDS)
    while count < schedules // len(KINDS) and time.monotonic() < ends:
        found = search(world, range(first + count, first + count + _AT_ONCE), most=1)
        count += found.count
        assert not found.failed, replay(world, *found.failed)
    rate = count / (time.monotonic() - began)
    print(f"\n{world}: {count} schedules from seed {first}, {rate:.0f}/s")
