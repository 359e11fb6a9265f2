"""The policy: a snapshot in, a plan out."""

import itertools
import math

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from linepool.errors import SetupError
from linepool.pool.policy import (
    MAX_BOOT_DELAY,
    MAX_SHORTAGE_DELAY,
    Plan,
    Snapshot,
    boot_delay,
    idle_floor,
    is_saturated,
    plan,
)
from linepool.pool.scoreboard import Tally
from linepool.settings import Settings, Workers, parse_setting, written


def bounds(low, high, **more):
    return Settings(workers=Workers(low, high), **more)


def snapshot(starting=0, idle=0, busy=0, leaving=0, **more):
    return Snapshot(Tally(starting, idle, busy, leaving), **more)


# Every pool of up to seven workers within every pair of bounds up to four.
POOLS = list(itertools.product(range(3), range(4), range(4), range(2)))
BOUNDS = [(low, high) for high in range(1, 5) for low in range(1, high + 1)]
SPARES = [(low, high) for high in range(3) for low in range(high + 1)]


def small_pools():
    """Yield settings and snapshots: combinations of a few small values; each seventh, or all if thorough.

    Because no number of values is divisible by seven, each of any two settings still meets each of the other.
    """
    is_thorough = hypothesis.settings().max_examples > 100
    return itertools.islice(_all_small_pools(), 0, None, 1 if is_thorough else 7)


def _all_small_pools():
    for (low, high), (min_spare, max_spare) in itertools.product(BOUNDS, SPARES):
        settings = bounds(low, high, min_spare=min_spare, max_spare=max_spare)
        for (starting, idle, busy, leaving), backlog, cpu_bound in itertools.product(
            POOLS, (0, 1, 5), (False, True)
        ):
            for idle_min, busy_max, allowance in ((None, 0, 9), (idle, busy, 9), (idle, 3, 1)):
                yield (
                    settings,
                    snapshot(
                        starting,
                        idle,
                        busy,
                        leaving,
                        backlog=backlog,
                        none_idle_for=0.0 if idle else 0.1,
                        idle_min=idle_min,
                        busy_max=busy_max,
                        spawn_allowance=allowance,
                        allowance_in=0.03,
                        cpu_bound=cpu_bound,
                    ),
                )


def test_no_plan_violates_the_bounds():
    for settings, seen in small_pools():
        change = plan(seen, settings)
        low, high = settings.workers.min, settings.workers.max
        after = seen.tally.staying + change.spawn - change.retire

        assert after <= high or change.spawn == 0
        assert after >= low or after == seen.tally.staying + seen.spawn_allowance
        # Leaving workers count, unless the pool is below its minimum.
        assert not change.spawn or seen.tally.total + change.spawn <= max(
            high, low + seen.tally.leaving
        )


def test_no_plan_forks_and_retires():
    assert not any(
        change.spawn and change.retire
        for change in (plan(seen, settings) for settings, seen in small_pools())
    )


def test_only_idle_workers_are_retired_while_the_pool_is_within_its_bounds():
    for settings, seen in small_pools():
        if seen.tally.staying <= settings.workers.max:
            assert plan(seen, settings).retire <= max(0, seen.tally.idle - settings.max_spare)


def test_after_a_plan_the_same_state_asks_for_nothing_more():
    for settings, seen in small_pools():
        if seen.tally.staying > settings.workers.max:
            continue
        change = plan(seen, settings)
        tally = Tally(
            seen.tally.starting + change.spawn,
            seen.tally.idle - change.retire,
            seen.tally.busy,
            seen.tally.leaving + change.retire,
        )
        allowance = seen.spawn_allowance - change.spawn
        idle_min = None if seen.idle_min is None else min(seen.idle_min, tally.idle)
        then = Snapshot(
            tally,
            backlog=seen.backlog,
            none_idle_for=seen.none_idle_for,
            idle_min=idle_min,
            busy_max=seen.busy_max,
            spawn_allowance=allowance,
            cpu_bound=seen.cpu_bound,
        )
        again = plan(then, settings)

        assert (again.spawn, again.retire) == (0, 0), (settings, seen, change, again)


def test_every_change_has_a_reason():
    assert all(
        bool(change.why)
        for change in (plan(seen, settings) for settings, seen in small_pools())
        if change.spawn or change.retire
    )


@given(st.data())
def test_a_delayed_change_says_when_to_plan_again(data):
    def some(low, high):
        return data.draw(st.integers(low, high))

    settings = bounds(1, 8, min_spare=some(0, 3), max_spare=3)
    seen = snapshot(
        some(0, 2),
        some(0, 5),
        some(0, 5),
        backlog=some(0, 9),
        none_idle_for=data.draw(st.floats(0, 0.2)),
        idle_min=data.draw(st.none() | st.integers(0, 5)),
        steady_for=data.draw(st.floats(0.001, 100)),
        busy_max=some(0, 8),
        spawn_allowance=some(0, 2),
        allowance_in=data.draw(st.floats(0.001, 1)),
        since_spawn=data.draw(st.floats(0, 20)),
        boot_failures=some(0, 2),
        since_failure=data.draw(st.floats(0, 1)),
        cpu_bound=data.draw(st.booleans()),
    )
    change = plan(seen, settings)

    assert 0 <= change.again_in < math.inf
    if seen.starved:
        assert change.again_in > 0
    elif not seen.tally.idle:
        assert change.watch
    spare = seen.tally.idle + seen.tally.starting
    boot_pending = seen.boot_failures and seen.tally.starting
    if spare < settings.min_spare and seen.tally.total < 8 and not boot_pending:
        assert change.spawn or change.again_in


# -- growing


def test_the_minimum_is_restored_at_once():
    assert plan(snapshot(busy=1), bounds(4, 8, min_spare=0)).spawn == 3


def test_missing_spare_workers_are_spawned_at_once():
    assert plan(snapshot(idle=1, busy=3), bounds(1, 9, min_spare=3)).spawn == 2


def test_starting_workers_count_as_idle():
    assert plan(snapshot(starting=2, busy=3), bounds(1, 9, min_spare=2)).spawn == 0


def test_a_peak_between_two_plans_counts():
    assert plan(snapshot(idle=2, busy_max=2), bounds(1, 9, min_spare=1)).spawn == 1


def test_each_waiting_client_gets_a_worker_when_none_was_idle_for_the_delay():
    seen = snapshot(starting=2, busy=2, backlog=7, none_idle_for=0.1)

    assert plan(seen, bounds(1, 32)).spawn == 5


def test_before_the_delay_ends_nothing_is_spawned_but_the_next_plan_is_scheduled():
    seen = snapshot(starting=1, busy=2, backlog=7, none_idle_for=0.04)
    change = plan(seen, bounds(1, 32))

    assert change.spawn == 0
    assert change.again_in == pytest.approx(0.06)


def test_waiting_clients_get_no_worker_while_one_is_idle():
    seen = snapshot(idle=1, busy=2, backlog=7, none_idle_for=0.0)

    assert plan(seen, bounds(1, 32)).spawn == 0


def test_without_an_idle_worker_the_listener_is_watched_until_a_client_waits():
    assert plan(snapshot(starting=1, busy=2), bounds(1, 32)).watch
    assert not plan(snapshot(starting=1, busy=2, backlog=1), bounds(1, 32)).watch
    assert not plan(snapshot(idle=1, busy=2), bounds(1, 32)).watch


def test_the_budget_limits_the_forks_and_says_when_the_next_is_allowed():
    seen = snapshot(busy=2, backlog=9, none_idle_for=1.0, spawn_allowance=4, allowance_in=0.03125)
    change = plan(seen, bounds(1, 32))

    assert (change.spawn, change.again_in) == (4, 0.03125)


def test_leaving_workers_count_towards_the_maximum():
    seen = snapshot(busy=2, leaving=5, backlog=9, none_idle_for=1.0)

    assert plan(seen, bounds(1, 8)).spawn == 1


def test_a_worker_that_is_slow_to_leave_does_not_count_towards_the_minimum():
    assert plan(snapshot(busy=3, leaving=1), bounds(4, 4)).spawn == 1


def test_a_cpu_bound_pool_does_not_grow():
    seen = snapshot(busy=4, backlog=9, none_idle_for=1.0, busy_max=4, cpu_bound=True)
    change = plan(seen, bounds(1, 32, min_spare=2))

    assert change.spawn == 0
    assert change.again_in > 0


def test_dead_workers_of_a_cpu_bound_pool_are_replaced():
    seen = snapshot(busy=3, busy_max=5, cpu_bound=True)

    assert plan(seen, bounds(1, 32)).spawn == 2
    assert plan(seen, bounds(6, 32)).spawn == 3


def test_a_cpu_bound_pool_grows_with_grow_on_cpu():
    seen = snapshot(busy=4, backlog=9, none_idle_for=1.0, cpu_bound=True)

    assert plan(seen, bounds(1, 32, grow_on_cpu=True)).spawn == 9


def test_a_pool_is_saturated_when_clients_wait_and_it_may_not_grow():
    settings = bounds(1, 4)

    assert is_saturated(snapshot(busy=4, backlog=1), settings)
    assert not is_saturated(snapshot(busy=4), settings)
    assert not is_saturated(snapshot(busy=3, backlog=1), settings)
    assert not is_saturated(snapshot(busy=3, idle=1, backlog=1), settings)


def test_a_saturated_pool_is_planned_for_again():
    assert plan(snapshot(busy=4, backlog=1, none_idle_for=9.0), bounds(1, 4)).again_in > 0


# -- failed boots


def test_after_a_failed_boot_one_worker_is_spawned_after_a_delay():
    settings = bounds(4, 4, respawn_backoff=0.1)
    early = plan(snapshot(boot_failures=2, since_failure=0.05), settings)

    assert early.spawn == 0
    assert early.again_in == pytest.approx(0.1)
    assert plan(snapshot(boot_failures=2, since_failure=0.16), settings).spawn == 1


def test_after_a_failed_boot_workers_are_spawned_one_at_a_time():
    seen = snapshot(starting=1, boot_failures=2, since_failure=9.0)

    assert plan(seen, bounds(4, 4)).spawn == 0


def test_in_a_shortage_a_worker_is_tried_again_soon():
    later = plan(snapshot(boot_failures=50, since_failure=0.0), bounds(4, 4)).again_in
    soon = plan(snapshot(boot_failures=50, since_failure=0.0, shortage=True), bounds(4, 4)).again_in

    assert (later, soon) == (MAX_BOOT_DELAY, MAX_SHORTAGE_DELAY)


@given(st.integers(1, 10_000), st.floats(0.001, 10))
def test_the_delay_after_failed_boots_grows_to_a_limit(failures, backoff):
    for shortage, most in ((False, MAX_BOOT_DELAY), (True, MAX_SHORTAGE_DELAY)):
        delays = [boot_delay(failures + more, backoff, shortage=shortage) for more in (0, 1)]
        assert delays[0] <= delays[1] <= most


# -- shrinking


def quiet(idle, **more):
    return snapshot(idle=idle, **{"idle_min": idle, **more})


def test_all_unneeded_workers_are_retired_in_one_step():
    assert plan(quiet(32), bounds(2, 32)).retire == 29


def test_no_worker_is_retired_below_the_minimum():
    assert plan(quiet(32), bounds(30, 32)).retire == 2


def test_no_worker_is_retired_before_the_window_is_full():
    change = plan(quiet(32, idle_min=None, steady_for=7.0), bounds(2, 32))

    assert (change.retire, change.again_in) == (0, 7.0)


def test_workers_needed_at_any_moment_of_the_window_stay():
    change = plan(quiet(32, idle_min=3, steady_for=7.0), bounds(2, 32))

    assert (change.retire, change.again_in) == (0, 7.0)


def test_workers_that_have_exited_since_are_not_retired_again():
    # Five of ten workers were busy; four of the ten were recycled and not replaced.
    assert plan(snapshot(idle=6, idle_min=5, busy_max=5), bounds(1, 32)).retire == 0


def test_retiring_waits_if_more_workers_become_unneeded_soon():
    change = plan(quiet(32, idle_min=4, steady_for=0.5), bounds(2, 32, shrink_window=60.0))

    assert (change.retire, change.again_in) == (0, 0.5)


def test_no_worker_is_retired_soon_after_a_spawn():
    change = plan(quiet(32, since_spawn=4.0), bounds(2, 32, min_worker_age=10.0))

    assert (change.retire, change.again_in) == (0, 6.0)


def test_workers_above_the_maximum_are_retired_at_once():
    assert plan(snapshot(busy=6, since_spawn=0.0), bounds(1, 4)).retire == 2


def test_an_idle_pool_of_fixed_size_needs_no_plan():
    assert plan(quiet(4), bounds(4, 4)) == Plan()


# -- settings


def test_a_max_spare_below_min_spare_is_refused():
    with pytest.raises(SetupError, match=r"max_spare \(3\) must not be below min_spare \(5\)"):
        Settings(min_spare=5)


@pytest.mark.parametrize("value", [True, "on", "TRUE", "Yes", 1])
def test_a_flag_is_turned_on_by_any_usual_word(value):
    assert written("grow_on_cpu", parse_setting("grow_on_cpu", value, "here")) == "on"


@pytest.mark.parametrize("value", [False, "off", "FALSE", "No", 0])
def test_a_flag_is_turned_off_by_any_usual_word(value):
    assert written("grow_on_cpu", parse_setting("grow_on_cpu", value, "here")) == "off"


def test_another_word_for_a_flag_is_refused():
    with pytest.raises(SetupError, match="here: grow_on_cpu must be on or off, not 'maybe'"):
        parse_setting("grow_on_cpu", "maybe", "here")


# -- which edges count


@pytest.mark.parametrize(
    ("workers", "tally", "least", "floor"),
    [
        ((4, 4), Tally(idle=1, busy=3), 1, 0),
        ((1, 4), Tally(idle=3, busy=1), 3, 3),
        ((1, 4), Tally(idle=3, busy=1), 1, 1),
        ((1, 4), Tally(busy=4), 0, 0),
        ((1, 4), Tally(idle=2, busy=2), 0, 0),
        ((1, 4), Tally(idle=1, busy=2), 0, 1),
        ((1, 4), Tally(busy=3), 0, None),
        ((8, 16), Tally(idle=8), 8, 1),
        ((1, 64), Tally(idle=40), 40, None),
    ],
)
def test_changes_below_the_least_number_of_idle_workers_count(workers, tally, least, floor):
    assert idle_floor(tally, least, Settings(workers=Workers(*workers))) == floor
