"""The figures of commands: buckets, blocks, rows and their sums."""

from __future__ import annotations

import importlib
import os
import time
from bisect import bisect_left
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from linepool import core, failures
from linepool.ipc.figures import BOUNDS_NS, DOUBLINGS, KEPT_NS, UNKNOWN, Figures, Reader, Row
from linepool.ipc.figures.buckets import BUCKETS, quantile_ns
from linepool.ipc.figures.row import SLOW_NS
from linepool.ipc.figures.words import (
    BLOCK_WORDS,
    BLOCKS,
    FIRST_BUCKET,
    FIRST_COMMAND,
    MOST_SLOW,
    OTHER,
    RESULTS,
    SUM_NS,
)

CLIENT = SimpleNamespace(peer="127.0.0.1:1")
NEAR_BOUNDS = st.sampled_from(BOUNDS_NS).flatmap(lambda bound: st.integers(bound - 1, bound + 1))
DURATIONS = st.one_of(st.just(0), st.integers(0, 2**62), NEAR_BOUNDS)


@pytest.fixture
def figures() -> Figures:
    """Give figures with two commands."""
    figures = Figures()
    figures.add_names(["ADD", "MUL"])
    return figures


def row_of(figures: Figures, slot: int, *names: str) -> Row:
    """Return the row of a worker that serves some commands."""
    return Row(figures.row(slot + 1), figures.blocks(names))


def test_every_fourth_bound_is_a_whole_power_of_two_seconds():
    bounds = [BOUNDS_NS[number] / 1e9 for number in DOUBLINGS]

    assert bounds[20] == 1.0
    assert bounds[21:24] == [2.0, 4.0, 8.0]
    assert bounds[:20] == pytest.approx([2.0**exponent for exponent in range(-20, 0)], rel=1e-3)


def test_the_results_are_those_of_the_access_log():
    assert set(RESULTS) == {
        failures.OK,
        failures.CLIENT_ERROR,
        failures.SERVER_ERROR,
        failures.TIMEOUT,
        failures.KILLED,
        failures.DIED,
        failures.DISCONNECTED,
    }


@given(st.lists(DURATIONS, max_size=30))
def test_a_row_counts_as_a_plain_list_would(durations):
    row = Row(None, [FIRST_COMMAND])
    for took_ns in durations:
        row.done(1, 0, took_ns, "ok", CLIENT)

    block = row.words[FIRST_COMMAND * BLOCK_WORDS :][:BLOCK_WORDS]
    expected = [0] * BUCKETS
    for took_ns in durations:
        expected[bisect_left(BOUNDS_NS, took_ns)] += 1
    assert list(block[FIRST_BUCKET:]) == expected
    assert block[SUM_NS] == sum(durations) % 2**64


@pytest.mark.skipif(not core.compiled, reason="the core is not built")
@given(DURATIONS)
def test_the_core_counts_as_pure_python_does(took_ns):
    row = Row(None, [FIRST_COMMAND])
    row.done(1, 0, took_ns, "ok", CLIENT)
    block = memoryview(bytearray(8 * BLOCK_WORDS)).cast("B").cast("L")

    importlib.import_module("linepool.core.figures").counted(block, took_ns)

    assert list(block) == list(row.words[FIRST_COMMAND * BLOCK_WORDS :][:BLOCK_WORDS])


@given(st.lists(st.integers(1, 10**12), min_size=1, max_size=60), st.sampled_from([0.5, 0.9, 0.99]))
def test_a_quantile_is_in_the_bucket_of_the_true_one(durations, share):
    counts = [0] * BUCKETS
    for took_ns in durations:
        counts[bisect_left(BOUNDS_NS, took_ns)] += 1
    rank = share * len(durations)
    true = next(one for at, one in enumerate(sorted(durations), 1) if at >= rank)

    found = quantile_ns(counts, share)

    number = bisect_left(BOUNDS_NS, true)
    low = BOUNDS_NS[number - 1] if number else 0
    assert low <= found <= BOUNDS_NS[min(number, len(BOUNDS_NS) - 1)]


def test_no_quantile_of_nothing():
    assert quantile_ns([0] * BUCKETS, 0.99) == 0


def test_rows_are_added_up_and_outlive_their_workers(figures: Figures):
    row_of(figures, 0, "ADD", "MUL").done(1, 0, 1000, "ok", CLIENT)
    row_of(figures, 3, "MUL").done(1, 0, 2000, "server_error", CLIENT)
    row_of(figures, 3, "ADD", "MUL").done(1, 0, 3000, "timeout", CLIENT)  # the next worker

    found = {one.name: one for one in Reader(figures).commands(4)}

    assert (found["ADD"].count, found["ADD"].sum_ns, found["ADD"].failed["timeout"]) == (2, 4000, 1)
    assert (found["MUL"].count, found["MUL"].ok, found["MUL"].failed["server_error"]) == (1, 0, 1)
    assert found["(unknown)"].count == 0


def test_slots_that_were_never_used_are_not_read(figures: Figures):
    row_of(figures, 5, "ADD").done(1, 0, 1000, "ok", CLIENT)

    assert [one.count for one in Reader(figures).commands(5) if one.name == "ADD"] == [0]


def test_nonsense_in_a_row_does_not_keep_the_others_from_being_read(figures: Figures):
    row = figures.row(1)
    row[:] = b"\xff" * len(row)
    row_of(figures, 1, "ADD").done(1, 0, 1000, "ok", CLIENT)

    assert Reader(figures).commands(2)
    assert Reader(figures).queue(2).buckets
    assert [one.took_ns for one in Reader(figures).slowest(2, 0)] == []


def test_a_command_keeps_its_block_whatever_the_next_generations_have(figures: Figures):
    (block,) = figures.blocks(["MUL"])
    figures.add_names(["NEW", "MUL"])
    figures.add_names(["ADD"])

    assert figures.blocks(["MUL"]) == [block]
    assert list(figures.names()) == ["ADD", "MUL", "NEW"]


def test_commands_without_a_block_share_that_of_the_others(figures: Figures):
    names = [f"C{number}" for number in range(BLOCKS)]
    figures.add_names(names)
    figures.add_names(["LATE"])

    assert len(figures.names()) == BLOCKS - FIRST_COMMAND
    assert figures.blocks(["C0", names[-1], "LATE"]) == [FIRST_COMMAND + 2, OTHER, OTHER]
    row_of(figures, 0, "LATE").done(1, 0, 1000, "ok", CLIENT)
    assert {one.name: one.count for one in Reader(figures).commands(1)}["(other)"] == 1


@pytest.mark.parametrize("name", ["x" * 300, "ü" * 100, "a\0b", "shop:ÄDD", '"\n{}'])
def test_any_name_has_a_block(figures: Figures, name: str):
    figures.add_names([name, "NEXT"])

    first, following = figures.blocks([name, "NEXT"])
    assert (first, following) == (FIRST_COMMAND + 2, FIRST_COMMAND + 3)


def test_another_process_attaches_the_same_figures(figures: Figures):
    facts, descriptors = figures.handed_over()
    other = Figures.taken_over(facts, [os.dup(descriptors[0])])
    row_of(other, 0, "ADD").done(1, 0, 1000, "ok", CLIENT)

    assert {one.name: one.count for one in Reader(figures).commands(1)}["ADD"] == 1


def test_the_slowest_requests_are_kept_and_the_others_give_way(figures: Figures):
    row, now = row_of(figures, 0, "ADD"), time.monotonic_ns()
    for number in range(MOST_SLOW + 5):
        row.done(1, now, now + SLOW_NS * (number + 2), "timeout", CLIENT)
    row.done(1, now, now + SLOW_NS // 2, "ok", CLIENT)

    slowest = Reader(figures).slowest(1, now)

    took = [one.took_ns // SLOW_NS for one in slowest]
    assert took == [number + 2 for number in range(MOST_SLOW + 4, 4, -1)]
    assert {(one.command, one.client, one.result) for one in slowest} == {
        ("ADD", "127.0.0.1:1", "timeout")
    }


def test_an_old_slow_request_gives_way_to_any_newer_one(figures: Figures):
    row, now = row_of(figures, 0, "ADD"), time.monotonic_ns()
    long_ago = now - KEPT_NS - 2_000 * SLOW_NS
    for _ in range(MOST_SLOW):
        row.done(1, long_ago, long_ago + 1000 * SLOW_NS, "ok", CLIENT)
    row.done(0, now, now + 2 * SLOW_NS, "ok", CLIENT)

    assert [one.command for one in Reader(figures).slowest(1, now)] == ["(unknown)"]


def test_the_next_worker_of_a_slot_knows_its_slowest_requests(figures: Figures):
    now = time.monotonic_ns()
    for number in range(MOST_SLOW):
        row_of(figures, 0, "ADD").done(1, now, now + SLOW_NS * (number + 2), "ok", CLIENT)

    assert len(Reader(figures).slowest(1, now)) == MOST_SLOW


def test_a_lost_request_is_counted_under_its_command(figures: Figures):
    (block,) = figures.blocks(["MUL"])
    Row(figures.row(0)).lost(block, 0, 5_000_000_000, "killed", CLIENT)
    Row(figures.row(0)).lost(UNKNOWN, 0, 1, "died", CLIENT)

    found = {one.name: one for one in Reader(figures).commands(0)}
    assert (found["MUL"].count, found["MUL"].failed["killed"], found["MUL"].ok) == (1, 1, 0)
    assert found["(unknown)"].failed["died"] == 1
