"""The page of the benchmarks says what the figures say, whatever they are."""

import asyncio
from typing import Any

from attrs import evolve

from benchmarks.speed import goals, report, summary
from benchmarks.speed.measure import Outcome
from benchmarks.speed.results import CPU, RATE, Results, Run
from benchmarks.speed.servers import C_EPOLL, KEPT, OURS, STREAMS, UNGUARDED, UVLOOPS
from benchmarks.targets import unguarded

USUAL = Outcome(
    requests=10_000,
    rps=10_000.0,
    p50=100.0,
    p99=500.0,
    max=900.0,
    errors=0,
    cpu_us=10.0,
    memory_mb=20.0,
    generator=0.5,
    foreign=0.0,
    master=0.005,
)
ONE, TWO = UVLOOPS


def results(*rounds: dict[str, Outcome], case: str = "pp64") -> Results:
    """Give the results of a case, one dict of outcomes by server for each round."""
    return Results(
        [
            Run(number, case, server, outcome)
            for number, outcomes in enumerate(rounds)
            for server, outcome in outcomes.items()
        ]
    )


def with_figures(**changes: Any) -> Outcome:
    return evolve(USUAL, **changes)


def test_a_ratio_is_the_median_of_the_rounds_against_the_better_server_of_each_round():
    found = results(
        {OURS: with_figures(rps=300), ONE: with_figures(rps=100), TWO: with_figures(rps=200)},
        {OURS: with_figures(rps=300), ONE: with_figures(rps=600), TWO: with_figures(rps=200)},
        {OURS: with_figures(rps=300), ONE: with_figures(rps=300), TWO: with_figures(rps=200)},
    )
    assert found.ratios("pp64", OURS, UVLOOPS, RATE) == [1.5, 0.5, 1.0]
    assert found.ratio("pp64", OURS, UVLOOPS, RATE) == 1.0


def test_of_processor_time_the_smaller_figure_is_the_better_one():
    found = results({OURS: USUAL, ONE: with_figures(cpu_us=5), TWO: with_figures(cpu_us=20)})
    assert found.ratio("pp64", OURS, UVLOOPS, CPU) == 2.0


def test_a_round_without_the_other_server_has_no_ratio():
    assert results({OURS: USUAL}, {OURS: USUAL, ONE: USUAL}).ratios(
        "pp64", OURS, UVLOOPS, RATE
    ) == [1.0]
    assert results({OURS: USUAL}).ratio("pp64", OURS, UVLOOPS, RATE) is None


def test_the_verdict_counts_faster_slower_and_like_loads():
    assert summary.verdict([1.2, 1.04, 0.96, 0.5], "uvloop") == (
        "more requests/s than uvloop in 1 of 4 loads, fewer in 1, and as many (within 5 %) in 2"
    )


def test_a_goal_is_met_or_missed_by_the_median():
    goal = goals.Goal("pp64", RATE, ">=", 1.05, "uvloop", UVLOOPS)
    slow, fast = ({OURS: with_figures(rps=rps), ONE: USUAL} for rps in (9_000, 11_000))
    assert goal.is_met(results(slow, fast, fast)) is True
    assert goal.is_met(results(slow, slow, fast)) is False
    assert goal.is_met(results({OURS: USUAL})) is None


def test_a_difference_is_taken_within_a_round():
    (goal,) = (one for one in goals.GOALS if one.is_difference)
    parked, kept = with_figures(p50=150), with_figures(p50=90)
    found = results({OURS: parked, KEPT: kept}, case="parked")
    assert goal.values(found) == [60.0]
    assert goal.is_met(found) is True


def test_missed_goals_stand_behind_all_that_users_ask_first():
    servers = dict.fromkeys((OURS, ONE, TWO, STREAMS, C_EPOLL, UNGUARDED), USUAL)
    page = report.markdown(results(servers), "", [], [], ["today"])
    assert page.index("## How fast") < page.index("## What isolation costs")
    assert page.index("## What isolation costs") < page.index("Not met:")
    assert "0 of 1 loads, fewer in 0, and as many (within 5 %) in 1: 1.00 times as many" in page


def test_a_page_without_linepool_is_a_page_of_tables():
    page = report.markdown(results({ONE: USUAL}), "", [], [], ["today"])
    assert "### ping-pong, 64 connections" in page
    assert "## Goals" not in page


def test_of_a_slow_request_the_page_shows_what_the_others_wait():
    waits = {OURS: with_figures(p99=20_000), ONE: with_figures(p99=990_000)}
    page = report.markdown(results(waits, case="blocked"), "", [], [], [])
    assert "at most: linepool 20.0 ms, uvloop 990 ms." in page


def test_the_unguarded_server_answers_like_linepool():
    sent = []

    class Client(asyncio.WriteTransport):
        def write(self, data):
            sent.append(data)

    connection = unguarded.Unguarded()
    connection.connection_made(Client())
    connection.data_received(b"ADD 1 2\nADD 3")
    connection.data_received(b" 4\n")
    assert b"".join(sent) == b"3\n7\n"
