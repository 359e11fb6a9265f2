"""What HAProxy's agent-check is answered."""

from __future__ import annotations

import pytest

from linepool.exporter.agent import IdleShare, agent_line
from linepool.exporter.probes import SILENT_S
from linepool.exporter.source import Snapshot


def snapshot(state: str) -> Snapshot:
    """Return a server in a state, at 100 s."""
    found: Snapshot = object.__new__(Snapshot)
    object.__setattr__(found, "at", 100.0)
    object.__setattr__(found, "state", {"state": state})
    return found


@pytest.mark.parametrize(
    ("state", "idle", "line"),
    [
        ("ready", 1.0, b"up ready 100%\n"),
        ("ready", 0.374, b"up ready 37%\n"),
        ("ready", 0.0, b"up ready 1%\n"),  # 0 % would take it out of the farm
        ("starting", 1.0, b"down #starting\n"),
        ("draining", 1.0, b"drain\n"),
        ("drained", 0.0, b"drain\n"),
        ("stopping", 0.5, b"drain\n"),
    ],
)
def test_the_line_follows_from_the_state(state: str, idle: float, line: bytes):
    assert agent_line(snapshot(state), idle, 100.5) == line


def test_a_master_that_does_not_answer_is_down():
    now = 100 + SILENT_S + 1
    assert agent_line(snapshot("ready"), 1.0, now) == b"down #the master does not answer\n"
    assert agent_line(snapshot("drained"), 1.0, now) == b"drain\n"


def tally(most: int, up: int) -> dict[str, int]:
    """Return the workers of a pool."""
    return {"idle": up, "busy": 0, "max": most}


def test_workers_that_may_still_be_forked_count_as_idle():
    share = IdleShare()
    share.add(tally(8, up=1), busy=1, now=0.0)
    assert share.value == 1 - 1 / 8


@pytest.mark.parametrize(("busy", "up"), [(9, 8), (0, 0)])
def test_more_than_all_are_busy_or_no_worker_is_up(busy: int, up: int):
    share = IdleShare()
    share.add(tally(8, up), busy, now=0.0)
    assert share.value == 0


def test_a_moment_changes_little_and_two_seconds_nearly_all():
    share = IdleShare()
    share.add(tally(4, up=4), busy=0, now=0.0)
    share.add(tally(4, up=4), busy=4, now=0.1)
    assert 0.9 < share.value < 1
    for tenth in range(2, 40):
        share.add(tally(4, up=4), busy=4, now=tenth / 10)
    assert share.value < 0.1


def test_the_pace_of_the_looks_does_not_matter():
    one, other = IdleShare(), IdleShare()
    for share in one, other:
        share.add(tally(4, up=4), busy=0, now=0.0)
    for tenth in range(1, 11):
        one.add(tally(4, up=4), busy=2, now=tenth / 10)
    other.add(tally(4, up=4), busy=2, now=1.0)
    assert one.value == pytest.approx(other.value)
