"""The history: exact figures of the past, from state changes."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from linepool.pool.history import Budget, History, Saturation, Sliding
from linepool.pool.scoreboard import Tally
from linepool.pool.status import State
from linepool.settings import Settings, Workers

SECOND = 1_000_000_000
MS = 1_000_000
STEPS = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 6)), max_size=60)


def seconds(number):
    return round(number * SECOND)


def history(window=10.0, grow_delay=0.1):
    return History(Settings(shrink_window=window, grow_delay=grow_delay), 0)


# -- the window


@given(STEPS, st.integers(1, 60))
def test_the_minimum_covers_every_value_within_the_window(steps, window):
    sliding = Sliding(3)
    held = [(0, 3)]  # a value, and when it began
    now = 0
    for pause, value in steps:
        now += pause
        sliding.set(value, now)
        held.append((now, value))
        ends = [begun for begun, _ in held[1:]]
        in_window = [v for (_, v), end in zip(held, ends, strict=False) if end > now - window]

        assert sliding.least(now - window) == min([*in_window, value])


@given(STEPS, st.integers(1, 60))
def test_the_time_at_which_the_minimum_rises_is_known(steps, window):
    sliding = Sliding(3)
    now = 0
    for pause, value in steps:
        now += pause
        sliding.set(value, now)
    least = sliding.least(now - window)
    until = sliding.least_until(now - window)

    if until is None:
        assert least == sliding.value
    else:
        assert sliding.least(until - 1) == least
        assert sliding.least(until) > least


@example([0, 1] * 20)
@given(st.lists(st.integers(0, 9), max_size=300))
def test_there_is_at_most_one_entry_per_distinct_value(values):
    sliding = Sliding(0)
    for at, value in enumerate(values):
        sliding.set(value, at)

    assert len(sliding._left) <= 10


def test_the_idle_minimum_is_unknown_until_the_window_is_full():
    past = history(window=10.0)
    past.changed(5, 0, 0)

    assert past.idle_min(seconds(9.999)) is None
    assert past.steady_for(seconds(9)) == 1.0
    assert past.idle_min(seconds(10)) == 5


def test_a_restart_begins_a_new_window():
    past = history(window=10.0)
    past.changed(1, 4, 0)
    past.changed(5, 0, seconds(8))
    past.restart(seconds(9))

    assert past.idle_min(seconds(18)) is None
    assert (past.idle_min(seconds(19)), past.busy_max(seconds(19))) == (5, 0)


def test_a_moment_between_two_reads_is_not_missed():
    past = history(window=10.0)
    past.changed(5, 0, 0)
    past.changed(1, 4, seconds(12))
    past.changed(5, 0, seconds(12) + 1)

    assert (past.idle_min(seconds(20)), past.busy_max(seconds(20))) == (1, 4)
    assert past.steady_for(seconds(20)) == pytest.approx(2.0)
    assert past.idle_min(seconds(22) + 1) == 5


def test_a_late_record_counts_as_of_the_latest_time():
    past = history(window=10.0)
    past.changed(4, 1, 0)
    past.changed(5, 0, seconds(20))
    past.changed(2, 3, seconds(15))
    past.changed(5, 0, seconds(16))

    assert past.idle_min(seconds(29)) == 2
    assert past.idle_min(seconds(30)) == 5


def test_what_may_have_happened_unseen_counts_as_of_the_moment_of_the_report():
    past = history(window=10.0)
    for slot in range(5):
        past.worker_changed(slot, State.READY, 0)
    past.unseen(2, 3, seconds(10))

    assert (past.idle_min(seconds(19)), past.busy_max(seconds(19))) == (2, 3)
    assert (past.idle_min(seconds(20)), past.busy_max(seconds(20))) == (5, 0)
    assert past.none_idle_for(seconds(20)) == 0


def test_the_least_number_of_idle_workers_is_since_the_last_question():
    past = history()
    for slot in range(3):
        past.worker_changed(slot, State.READY, 0)
    past.take_least_idle()
    past.worker_changed(0, State.TAKEN, 1)
    past.worker_changed(1, State.TAKEN, 2)
    past.worker_changed(1, State.IDLE, 3)

    assert past.take_least_idle() == 1
    assert past.take_least_idle() == 2
    past.unseen(0, 3, 4)
    assert past.take_least_idle() == 2


# -- the workers


def test_workers_are_counted_by_their_last_state():
    past = history()
    said = [
        (1, State.READY, (1, 0)),
        (2, State.READY, (2, 0)),
        (1, State.TAKEN, (1, 1)),
        (1, State.TAKEN, (1, 1)),
        (1, State.IDLE, (2, 0)),
        (2, State.LEAVING, (1, 0)),
        (1, None, (0, 0)),
        (1, None, (0, 0)),
    ]
    for number, (slot, state, counts) in enumerate(said):
        past.worker_changed(slot, state, number * SECOND)
        now = number * SECOND + 1
        past.restart(now)

        assert (past.idle_min(now + 10 * SECOND), past.busy_max(now)) == counts


def test_a_ready_worker_resets_the_count_of_failed_boots():
    past = history()
    past.boot_failed(0)
    past.boot_failed(seconds(1))
    seen = past.snapshot(Tally(), Settings(), seconds(3))

    assert (seen.boot_failures, seen.since_failure) == (2, 2.0)
    past.worker_changed(0, State.READY, seconds(4))
    assert past.snapshot(Tally(), Settings(), seconds(5)).boot_failures == 0


@pytest.mark.parametrize("shortage", [False, True])
def test_the_last_failed_boot_says_whether_there_is_a_shortage(shortage):
    past = history()
    past.boot_failed(0, shortage=not shortage)
    past.boot_failed(0, shortage=shortage)

    assert past.snapshot(Tally(), Settings(), 0).shortage == shortage


# -- no worker idle


def test_the_time_without_an_idle_worker_is_counted():
    past = history()
    past.changed(1, 0, seconds(1))
    past.changed(0, 1, seconds(2))

    assert past.none_idle_for(seconds(1.5)) == 0.0
    assert past.none_idle_for(seconds(2.25)) == 0.25


@pytest.mark.parametrize(("busy_ms", "idle_ms"), [(9.8, 0.2), (0.5, 1.9), (95, 5)])
def test_short_idle_moments_do_not_reset_the_time_without_an_idle_worker(busy_ms, idle_ms):
    past = history(grow_delay=0.1)
    now = seconds(1)
    past.changed(1, 0, now - SECOND)
    past.changed(0, 1, now)
    for _ in range(300):
        past.changed(1, 0, now := now + seconds(busy_ms / 1000))
        past.changed(0, 1, now := now + seconds(idle_ms / 1000))

    assert past.none_idle_for(now) >= 0.1


def test_a_worker_that_is_idle_much_of_the_time_resets_it():
    past = history(grow_delay=0.1)
    now = seconds(1)
    past.changed(1, 0, now - SECOND)
    past.changed(0, 1, now)
    for _ in range(1000):
        past.changed(1, 0, now := now + 5 * MS)
        past.changed(2, 0, now := now + 2 * MS)
        past.changed(1, 0, now := now + MS)
        past.changed(0, 1, now := now + 2 * MS)

    assert past.none_idle_for(now) < 0.1


@given(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 2)), max_size=40))
def test_a_full_delay_without_an_idle_worker_is_always_detected(steps):
    past = history(grow_delay=0.1)
    now = 0
    for pause, idle in steps:
        now += pause * 1_000_000
        past.changed(idle, 1, now)
    past.changed(0, 1, now)

    assert past.none_idle_for(now + seconds(0.1)) >= 0.1
    assert past.none_idle_for(now) <= now / SECOND


def test_a_short_idle_period_resets_even_a_long_time_without_an_idle_worker():
    past = history(grow_delay=0.1)
    past.changed(0, 4, 0)
    past.changed(1, 3, seconds(3600))
    past.changed(0, 4, seconds(3600.1))

    assert past.none_idle_for(seconds(3600.1)) == 0.0


# -- the budget

RATES = st.sampled_from([0.1, 0.5, 1.0, 3.0, 32.0, 999.0])


@given(RATES, st.integers(1, 50), st.lists(st.integers(0, 3_000_000_000), max_size=50))
def test_the_budget_is_never_exceeded(rate, low, pauses):
    settings = Settings(max_spawn_rate=rate, workers=Workers(low, 50))
    burst = max(1, int(rate), low)
    budget = Budget()
    forks = []
    now = 0
    for pause in pauses:
        now += pause
        for _ in range(budget.allowance(settings, now)):
            budget.spend(settings, now)
            forks.append(now)

    for first, begin in enumerate(forks[:200]):
        for last, end in enumerate(forks[first : first + 200], first):
            assert last - first + 1 <= burst + rate * (end - begin) / SECOND + 1e-6


@given(RATES, st.integers(1, 50), st.integers(1, 60), st.integers(0, 3_000_000_000))
def test_the_next_fork_is_allowed_at_the_announced_time(rate, low, forks, pause):
    settings = Settings(max_spawn_rate=rate, workers=Workers(low, 50))
    budget = Budget()
    for _ in range(forks):
        budget.spend(settings, 0)
    allowed = budget.allowance(settings, pause)
    rest = round(budget.next_in(settings, pause) * SECOND)

    if rest:
        assert budget.allowance(settings, pause + rest - 2) == allowed
        assert budget.allowance(settings, pause + rest + 2) == allowed + 1
    else:
        assert allowed == max(1, int(rate), low)


def test_a_raised_minimum_can_be_filled_at_once():
    budget = Budget()
    small = Settings(workers=Workers(1, 200))
    for _ in range(32):
        budget.spend(small, 0)

    assert budget.allowance(small, 0) == 0
    assert budget.allowance(Settings(workers=Workers(100, 200)), 0) == 68


# -- saturation


def test_saturation_is_counted_between_consecutive_saturated_calls():
    saturation = Saturation()
    for at, saturated in [(0, False), (1, True), (3, True), (4, False), (9, True), (10, True)]:
        saturation.look(saturated, seconds(at))

    assert saturation.seconds == 3.0


def test_saturation_is_warned_about_after_a_second_and_then_once_a_minute():
    saturation = Saturation()
    warned = [at for at in range(200) if saturation.look(at >= 5, seconds(at))]

    assert warned == [6, 66, 126, 186]


def test_saturation_that_does_not_last_a_second_is_not_warned_about():
    saturation = Saturation()
    warned = [at for at in range(130) if saturation.look(at % 2 == 1, seconds(at))]

    assert warned == []
