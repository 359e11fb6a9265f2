"""The policy: one table of values in, one plan out."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from linepool.errors import SetupError
from linepool.pool.policy import MAX_BOOT_DELAY, Plan, Snapshot, boot_delay, is_saturated, plan
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


def small_world():
    """Yield every snapshot of a small world, with settings."""
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


def test_no_plan_leaves_the_bounds():
    for settings, seen in small_world():
        change = plan(seen, settings)
        low, high = settings.workers.min, settings.workers.max
        after = seen.tally.staying + change.spawn - change.retire

        assert after <= high or change.spawn == 0
        assert after >= low or after == seen.tally.staying + seen.spawn_allowance
        # Those who leave count, unless the floor is at stake.
        assert not change.spawn or seen.tally.total + change.spawn <= max(
            high, low + seen.tally.leaving
        )


def test_no_plan_forks_and_retires():
    assert not any(
        change.spawn and change.retire
        for change in (plan(seen, settings) for settings, seen in small_world())
    )


def test_only_idle_workers_are_retired_while_the_pool_is_within_its_bounds():
    for settings, seen in small_world():
        if seen.tally.staying <= settings.workers.max:
            assert plan(seen, settings).retire <= max(0, seen.tally.idle - settings.max_spare)


def test_after_a_plan_the_same_state_asks_for_nothing_more():
    for settings, seen in small_world():
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


def test_a_reason_stands_with_every_change():
    assert all(
        bool(change.why)
        for change in (plan(seen, settings) for settings, seen in small_world())
        if change.spawn or change.retire
    )


@given(st.data())
def test_what_holds_a_plan_back_says_when_to_ask_again(data):
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
    waits_for_a_boot = seen.boot_failures and seen.tally.starting
    if spare < settings.min_spare and seen.tally.total < 8 and not waits_for_a_boot:
        assert change.spawn or change.again_in


# -- growing


def test_the_floor_is_restored_at_once():
    assert plan(snapshot(busy=1), bounds(4, 8, min_spare=0)).spawn == 3


def test_fewer_idle_than_wanted_are_spawned_at_once():
    assert plan(snapshot(idle=1, busy=3), bounds(1, 9, min_spare=3)).spawn == 2


def test_those_starting_count_as_idle():
    assert plan(snapshot(starting=2, busy=3), bounds(1, 9, min_spare=2)).spawn == 0


def test_a_peak_between_two_looks_counts():
    assert plan(snapshot(idle=2, busy_max=2), bounds(1, 9, min_spare=1)).spawn == 1


def test_each_who_waits_gets_a_worker_when_nobody_is_idle_for_the_delay():
    seen = snapshot(starting=2, busy=2, backlog=7, none_idle_for=0.1)

    assert plan(seen, bounds(1, 32)).spawn == 5


def test_before_the_delay_is_over_those_who_wait_get_none_but_a_date():
    seen = snapshot(starting=1, busy=2, backlog=7, none_idle_for=0.04)
    change = plan(seen, bounds(1, 32))

    assert change.spawn == 0
    assert change.again_in == pytest.approx(0.06)


def test_nobody_gets_a_worker_for_waiting_while_somebody_is_idle():
    seen = snapshot(idle=1, busy=2, backlog=7, none_idle_for=0.0)

    assert plan(seen, bounds(1, 32)).spawn == 0


def test_without_anybody_idle_the_listener_is_watched_until_somebody_waits():
    assert plan(snapshot(starting=1, busy=2), bounds(1, 32)).watch
    assert not plan(snapshot(starting=1, busy=2, backlog=1), bounds(1, 32)).watch
    assert not plan(snapshot(idle=1, busy=2), bounds(1, 32)).watch


def test_the_budget_limits_the_forks_and_says_when_the_next_is_allowed():
    seen = snapshot(busy=2, backlog=9, none_idle_for=1.0, spawn_allowance=4, allowance_in=0.03125)
    change = plan(seen, bounds(1, 32))

    assert (change.spawn, change.again_in) == (4, 0.03125)


def test_those_who_leave_still_count_for_the_maximum():
    seen = snapshot(busy=2, leaving=5, backlog=9, none_idle_for=1.0)

    assert plan(seen, bounds(1, 8)).spawn == 1


def test_one_who_takes_its_time_to_leave_does_not_cost_the_pool_its_floor():
    assert plan(snapshot(busy=3, leaving=1), bounds(4, 4)).spawn == 1


def test_a_pool_that_burns_the_processors_does_not_grow():
    seen = snapshot(busy=4, backlog=9, none_idle_for=1.0, busy_max=4, cpu_bound=True)
    change = plan(seen, bounds(1, 32, min_spare=2))

    assert change.spawn == 0
    assert change.again_in > 0


def test_a_pool_that_burns_the_processors_still_has_its_dead_replaced():
    seen = snapshot(busy=3, busy_max=5, cpu_bound=True)

    assert plan(seen, bounds(1, 32)).spawn == 2
    assert plan(seen, bounds(6, 32)).spawn == 3


def test_a_pool_that_burns_the_processors_grows_if_told_to():
    seen = snapshot(busy=4, backlog=9, none_idle_for=1.0, cpu_bound=True)

    assert plan(seen, bounds(1, 32, grow_on_cpu=True)).spawn == 9


def test_a_pool_is_saturated_when_clients_wait_and_it_may_not_grow():
    settings = bounds(1, 4)

    assert is_saturated(snapshot(busy=4, backlog=1), settings)
    assert not is_saturated(snapshot(busy=4), settings)
    assert not is_saturated(snapshot(busy=3, backlog=1), settings)
    assert not is_saturated(snapshot(busy=3, idle=1, backlog=1), settings)


def test_a_saturated_pool_is_looked_at_again():
    assert plan(snapshot(busy=4, backlog=1, none_idle_for=9.0), bounds(1, 4)).again_in > 0


# -- boots that fail


def test_after_a_failed_boot_one_is_tried_when_its_pause_is_over():
    settings = bounds(4, 4, respawn_backoff=0.1)
    early = plan(snapshot(boot_failures=2, since_failure=0.05), settings)

    assert early.spawn == 0
    assert early.again_in == pytest.approx(0.1)
    assert plan(snapshot(boot_failures=2, since_failure=0.16), settings).spawn == 1


def test_after_a_failed_boot_one_at_a_time_is_tried():
    seen = snapshot(starting=1, boot_failures=2, since_failure=9.0)

    assert plan(seen, bounds(4, 4)).spawn == 0


@given(st.integers(1, 10_000), st.floats(0.001, 10))
def test_the_pause_after_failed_boots_grows_to_a_limit(failures, backoff):
    assert boot_delay(failures, backoff) <= boot_delay(failures + 1, backoff) <= MAX_BOOT_DELAY


# -- shrinking


def quiet(idle, **more):
    return snapshot(idle=idle, **{"idle_min": idle, **more})


def test_all_who_were_not_needed_go_in_one_step():
    assert plan(quiet(32), bounds(2, 32)).retire == 29


def test_nobody_goes_below_the_minimum():
    assert plan(quiet(32), bounds(30, 32)).retire == 2


def test_nobody_goes_before_the_window_has_been_observed():
    change = plan(quiet(32, idle_min=None, steady_for=7.0), bounds(2, 32))

    assert (change.retire, change.again_in) == (0, 7.0)


def test_who_was_needed_at_any_moment_of_the_window_stays():
    change = plan(quiet(32, idle_min=3, steady_for=7.0), bounds(2, 32))

    assert (change.retire, change.again_in) == (0, 7.0)


def test_who_has_left_since_he_was_idle_is_not_retired_again():
    # Ten were there and five of them busy; four of the ten recycled and were not replaced.
    assert plan(snapshot(idle=6, idle_min=5, busy_max=5), bounds(1, 32)).retire == 0


def test_more_to_be_found_unneeded_shortly_is_waited_for():
    change = plan(quiet(32, idle_min=4, steady_for=0.5), bounds(2, 32, shrink_window=60.0))

    assert (change.retire, change.again_in) == (0, 0.5)


def test_nobody_goes_soon_after_a_spawn():
    change = plan(quiet(32, since_spawn=4.0), bounds(2, 32, min_worker_age=10.0))

    assert (change.retire, change.again_in) == (0, 6.0)


def test_a_pool_above_its_maximum_loses_the_excess_at_once():
    assert plan(snapshot(busy=6, since_spawn=0.0), bounds(1, 4)).retire == 2


def test_a_fixed_pool_at_rest_has_nothing_planned():
    assert plan(quiet(4), bounds(4, 4)) == Plan()


# -- settings


def test_fewer_spare_at_most_than_at_least_is_refused():
    with pytest.raises(SetupError, match=r"max_spare \(3\) must not be below min_spare \(5\)"):
        Settings(min_spare=5)


@pytest.mark.parametrize("value", [True, "on", "TRUE", "Yes", 1])
def test_a_switch_is_put_on_by_any_of_the_usual_words(value):
    assert written("grow_on_cpu", parse_setting("grow_on_cpu", value, "here")) == "on"


@pytest.mark.parametrize("value", [False, "off", "FALSE", "No", 0])
def test_a_switch_is_put_off_by_any_of_the_usual_words(value):
    assert written("grow_on_cpu", parse_setting("grow_on_cpu", value, "here")) == "off"


def test_another_word_for_a_switch_is_refused():
    with pytest.raises(SetupError, match="here: grow_on_cpu must be on or off, not 'maybe'"):
        parse_setting("grow_on_cpu", "maybe", "here")
