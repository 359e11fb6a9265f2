"""Deadlines: when each step is due, and which time counts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from linepool.pool.deadline import DUMP_NS, STALL_NS, Escalation, Rules, StallLog, Step

MS = 1_000_000
S = 1000 * MS
NEVER = 10**18


def steps(limit_ns: int, rules: Rules) -> list[tuple[Step, int]]:
    """Return all steps in order, each with the time at which it is due."""
    escalation = Escalation(1)
    taken = []
    while due := escalation.due(limit_ns, rules):
        taken.append(due)
        escalation.step = due[0]
    return taken


# -- the steps


def test_an_overdue_request_is_interrupted_then_its_stack_is_dumped_then_it_is_killed():
    assert steps(10 * S, Rules(slow_ns=0, grace_ns=2 * S)) == [
        (Step.RAISE, 10 * S),
        (Step.ASK_STUCK, 12 * S),
        (Step.KILL, 12 * S + DUMP_NS),
    ]


def test_the_stack_of_a_slow_request_is_dumped_before_those_steps():
    assert steps(10 * S, Rules(slow_ns=S, grace_ns=2 * S)) == [
        (Step.ASK_SLOW, S),
        (Step.TELL_SLOW, S + DUMP_NS),
        (Step.RAISE, 10 * S),
        (Step.ASK_STUCK, 12 * S),
        (Step.KILL, 12 * S + DUMP_NS),
    ]


def test_without_a_limit_nothing_is_overdue():
    assert steps(0, Rules(slow_ns=0, grace_ns=2 * S)) == []
    assert [step for step, _ in steps(0, Rules(slow_ns=S, grace_ns=2 * S))] == [
        Step.ASK_SLOW,
        Step.TELL_SLOW,
    ]


@pytest.mark.parametrize("limit_ns", [S, S - 1, 1])
def test_a_request_that_is_overdue_before_it_is_slow_is_not_reported_as_slow(limit_ns):
    assert [step for step, _ in steps(limit_ns, Rules(slow_ns=S, grace_ns=S))] == [
        Step.RAISE,
        Step.ASK_STUCK,
        Step.KILL,
    ]


def test_without_grace_the_stack_is_dumped_at_once():
    assert steps(S, Rules(slow_ns=0, grace_ns=0)) == [
        (Step.RAISE, S),
        (Step.ASK_STUCK, S),
        (Step.KILL, S + DUMP_NS),
    ]


def test_an_extended_limit_delays_the_remaining_steps_and_repeats_none():
    rules = Rules(slow_ns=0, grace_ns=S)
    escalation = Escalation(1)
    assert escalation.due(2 * S, rules) == (Step.RAISE, 2 * S)
    assert escalation.due(9 * S, rules) == (Step.RAISE, 9 * S)
    escalation.step = Step.RAISE
    assert escalation.due(20 * S, rules) == (Step.ASK_STUCK, 21 * S)
    escalation.step = Step.KILL
    assert escalation.due(30 * S, rules) is None


@given(st.integers(0, 100 * S), st.integers(0, 100 * S), st.integers(0, 100 * S), st.data())
def test_each_step_is_taken_once_and_in_order_however_the_limit_changes(
    limit_ns, slow_ns, grace_ns, data
):
    escalation = Escalation(1)
    taken = []
    ran_ns = 0
    while due := escalation.due(limit_ns, Rules(slow_ns, grace_ns)):
        step, at_ns = due
        ran_ns = max(ran_ns, at_ns)
        taken.append(step)
        escalation.step = step
        if data.draw(st.booleans()):
            limit_ns = ran_ns + data.draw(st.integers(1, 100 * S))

    assert taken == sorted(set(taken))
    assert (Step.KILL in taken) == bool(limit_ns)
    assert (Step.RAISE in taken) >= (limit_ns > 0 and Step.ASK_STUCK in taken)
    assert (Step.ASK_SLOW in taken) == (Step.TELL_SLOW in taken)
    if limit_ns:
        assert ran_ns >= grace_ns


# -- stalls of the master


def test_time_in_which_the_master_ran_is_charged():
    assert StallLog().charged(5 * S, 7 * S) == 2 * S


def test_a_short_stall_counts_as_running_time():
    stall_log = StallLog()

    assert not stall_log.stalled(S, S + STALL_NS - 1)

    assert stall_log.charged(0, 2 * S) == 2 * S


@pytest.mark.parametrize(
    ("started_s", "now_s", "charged_s"),
    [
        (0, 9, 4),  # around the stall
        (0, 6, 1),  # right after it
        (3, 9, 3),  # began during it
        (3, 6, 0),
        (6, 9, 3),  # began when it ended
        (7, 9, 2),
    ],
)
def test_a_stall_is_not_charged(started_s, now_s, charged_s):
    stall_log = StallLog()

    assert stall_log.stalled(1 * S, 6 * S)

    assert stall_log.charged(started_s * S, now_s * S) == charged_s * S


def test_a_stall_that_is_recorded_several_times_counts_once():
    stall_log = StallLog()

    assert stall_log.stalled(2 * S, 5 * S)
    assert not stall_log.stalled(2 * S, 5 * S)
    assert not stall_log.stalled(1 * S, 5 * S + MS)
    assert not stall_log.stalled(4 * S, 5 * S)

    assert stall_log.charged(0, 6 * S) == 3 * S - MS


def test_several_stalls_add_up():
    stall_log = StallLog()
    for second in range(0, 20, 2):
        assert stall_log.stalled(second * S, (second + 1) * S)

    assert stall_log.charged(0, 20 * S) == 10 * S
    assert stall_log.charged(10 * S, 20 * S) == 5 * S
    assert stall_log.charged(19 * S, 20 * S) == 1 * S


def test_a_start_time_in_the_future_is_never_overdue():
    stall_log = StallLog()
    stall_log.stalled(0, S)

    assert stall_log.charged(NEVER, 2 * S) < 0


@st.composite
def stalls(draw) -> list[tuple[int, int]]:
    """Return stalls of a master in order, each with its start and end."""
    now = 0
    periods = []
    for _ in range(draw(st.integers(0, 8))):
        begin = now + draw(st.integers(0, 3 * S))
        now = begin + draw(st.integers(1, 3 * S))
        periods.append((begin, now))
    return periods


@given(stalls(), st.integers(0, 120 * S), st.integers(0, 120 * S))
def test_a_request_is_charged_exactly_for_what_the_master_could_have_seen(periods, one, other):
    started, now = sorted((one, other))
    stall_log = StallLog()
    seen = now - started
    for begin, end in periods:
        if end > now:
            break
        assert stall_log.stalled(begin, end) == (end - begin >= STALL_NS)
        if end - begin >= STALL_NS:
            seen -= max(0, end - max(begin, started))

    assert stall_log.charged(started, now) == seen


@given(stalls(), st.data())
def test_recording_a_stall_again_or_in_part_changes_nothing(periods, data):
    once, often = StallLog(), StallLog()
    now = 0
    for begin, end in periods:
        once.stalled(begin, end)
        for _ in range(data.draw(st.integers(1, 3))):
            often.stalled(begin, end)
            often.stalled(data.draw(st.integers(begin, end)), end)
        now = end
    started = data.draw(st.integers(0, now))

    assert often.charged(started, now) == once.charged(started, now)


@given(stalls(), st.data())
def test_nothing_is_charged_twice_or_negative(periods, data):
    stall_log = StallLog()
    now = 0
    for _, end in periods:
        stall_log.stalled(data.draw(st.integers(0, end)), end)
        now = end
    started = data.draw(st.integers(0, now))

    charged = stall_log.charged(started, now)

    assert 0 <= charged <= now - started


def test_a_thousand_stalls_within_one_request_are_all_subtracted():
    stall_log = StallLog()
    for number in range(1000):
        stall_log.stalled(number * S, number * S + S // 2)

    assert stall_log.charged(0, 1000 * S) == 500 * S
