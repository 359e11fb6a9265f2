"""Many schedules of the simulation, with other seeds in each run; see docs/reliability.md."""

from __future__ import annotations

import time

import pytest

from tests.simulation.many import search_many
from tests.simulation.run import replay
from tests.simulation.world import KINDS


@pytest.fixture
def schedules(request: pytest.FixtureRequest) -> int:
    """Give how many schedules are run, of all worlds together, in the time that there is."""
    return int(request.config.getoption("--schedules"))


@pytest.mark.parametrize("world", KINDS)
def test_no_schedule_breaks_an_invariant(world, schedules, seconds):
    first = time.time_ns() // 1_000_000_000 * 10_000_000
    began = time.monotonic()
    most = schedules // len(KINDS)
    found = search_many(world, first, most, began + seconds / len(KINDS))
    assert not found.failed, replay(world, min(found.failed))
    rate = found.count / (time.monotonic() - began)
    print(f"\n{world}: {found.count} schedules from seed {first}, {rate:.0f}/s")
