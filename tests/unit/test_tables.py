"""What commands show at a terminal: widths, units, colours."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest

from linepool.operate import events_at_terminal, shown_at_terminal, tables
from linepool.operate.shown import events_as_lines
from linepool.operate.shown_at_terminal import stacks_at_terminal, state_at_terminal
from linepool.operate.tables import counted, cut, padded, seconds, size, table, width

WORKER = {
    "slot": 0,
    "pid": 4712,
    "generation": 1,
    "state": "busy",
    "since_s": 3.04,
    "requests": 12345,
    "connections": 3,
    "busy_ratio": 0.123,
    "rss_bytes": 17_200_000,
    "command": "NAP",
    "timeout_s": 30.0,
}
STATE = {
    "name": "数独\x1b[2J",
    "version": "0.1.0",
    "pid": 4711,
    "uptime_s": 183_600.0,
    "state": "ready",
    "core": "compiled",
    "generation": 2,
    "scheme": "shared",
    "listeners": [
        {"address": f"127.0.0.1:{port}", "backlog": 0, "backlog_max": 9} for port in range(9)
    ],
    "tally": {"starting": 0, "idle": 2, "busy": 1, "leaving": 0, "total": 3, "min": 1, "max": 16},
    "connections": {"hot": 3, "parked": 3000},
    "counters": dict.fromkeys(
        (
            "requests",
            "errors",
            "timeouts",
            "crashes",
            "refused",
            "braked",
            "dropped",
            "denied",
            "saturated_s",
        ),
        0,
    )
    | {"requests": 1_234_567, "kills": 1},
    "brakes": [],
    "workers": [WORKER, {**WORKER, "state": "idle", "command": None, "timeout_s": None}],
}


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shown_at_terminal, "sys", SimpleNamespace(stdout=Terminal()))
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("NO_COLOR", raising=False)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0 s"),
        (0.351, "0.35 s"),
        (3.04, "3 s"),
        (3.26, "3.3 s"),
        (9.99, "10 s"),
        (59.7, "1 min"),
        (125, "2 min 5 s"),
        (3600, "1 h"),
        (183_600, "2 d 3 h"),
    ],
)
def test_a_duration_has_two_units_at_most(value, shown):
    assert seconds(value) == shown


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (17_200_000, "17 MB"),
        (999_600, "1.0 MB"),
        (1_234_000_000, "1.2 GB"),
        (None, "-"),
    ],
)
def test_a_size_has_the_unit_that_fits(count, shown):
    assert size(count) == shown


def test_a_width_counts_columns_not_characters():
    assert [width(text) for text in ("abc", "数独", "e\u0301", "")] == [3, 4, 1, 0]
    assert padded("数", 4) == "数  "
    assert padded("数", 4, right=True) == "  数"
    assert [cut("数独です", most) for most in (8, 7, 4, 1, 0)] == [
        "数独です",
        "数独で…",
        "数…",
        "…",
        "",
    ]


def test_a_table_fits_the_terminal():
    lines = table(("N", "NAME"), [("1", "x" * 100), ("10", "数" * 50)], 20, right=("N",))

    assert lines == [" N  NAME", " 1  " + "x" * 15 + "…", "10  " + "数" * 7 + "…"]


def test_one_thing_is_not_several():
    assert (counted(1, "worker"), counted(2000, "worker")) == ("1 worker", "2,000 workers")


def test_the_state_has_units_and_fits_eighty_columns(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    lines = state_at_terminal(STATE)
    text = "\n".join(lines)

    assert lines[0] == "数独\\x1b[2J  ready  up 2 d 3 h"
    assert max(map(width, lines)) <= 80
    assert "\x1b" not in text
    assert "1,234,567, 0 errors" in text
    assert "3 of 1:16, 2 idle, 1 busy" in text
    assert "trouble       1 killed\n" in text
    assert "busy 3 s of 30 s" in text
    assert "17 MB  NAP" in text


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_colours_can_be_switched_off(monkeypatch, name, value):
    assert "\x1b[33m" in "\n".join(state_at_terminal(STATE))
    monkeypatch.setenv(name, value)
    assert "\x1b" not in "\n".join(state_at_terminal(STATE))
    assert not tables.has_colours(io.StringIO())


def test_a_request_that_has_used_half_its_time_is_red():
    late = {**STATE, "workers": [{**WORKER, "since_s": 16.0}]}

    assert state_at_terminal(late)[-1].startswith("\x1b[31m")


def test_stacks_name_function_and_place(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    frame = {"file": "/srv/app.py", "line": 4, "function": "nap"}
    row = {**WORKER, "for_s": 1.25, "stack": [frame], "no_stack": None}
    idle = {
        **row,
        "state": "idle",
        "command": None,
        "timeout_s": None,
        "stack": [],
        "no_stack": "no",
    }

    assert stacks_at_terminal([row, idle]) == [
        "worker 0 (pid 4712): busy 1.2 s of 30 s in NAP",
        "  nap  /srv/app.py:4",
        "",
        "worker 0 (pid 4712): idle 1.2 s",
        "  no",
    ]


def test_requests_that_wait_are_below_the_workers(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    row = {"topic": "jobs\x1b", "command": "TAKE", "requests": 2, "oldest_s": 12.0}
    long = {**row, "topic": "x" * 160, "requests": 1, "oldest_s": 0.5}
    state = {**STATE, "waiters": {"requests": 3, "oldest_s": 12.0, "topics": [row, long]}}
    none = {**STATE, "waiters": {"requests": 0, "oldest_s": None, "topics": []}}

    assert stacks_at_terminal([], state) == [
        "",
        "3 requests wait without a worker, the longest for 12 s",
        "  REQUESTS  WAITED  COMMAND  TOPIC",
        "         2    12 s  TAKE     jobs\\x1b",
        f"         1   0.5 s  TAKE     {'x' * 39}…",
    ]
    assert stacks_at_terminal([], none) == []
    text = " ".join(" ".join(state_at_terminal(state)).split())
    assert (
        "waiters 3 requests wait without a worker, the longest for 12 s, 2 for jobs\\x1b (TAKE)"
        in text
    )
    assert max(map(width, state_at_terminal(state))) <= 80
    assert "waiters" not in " ".join(state_at_terminal(none))


EVENT = {
    "number": 7,
    "change": 9,
    "first": 1000.0,
    "last": 1042.0,
    "count": 1204,
    "kind": "killed",
    "command": "NAP\x1b[2J",
    "client": "10.1.4.17:40112",
    "pid": 4712,
    "slot": 0,
    "generation": 1,
    "ran_s": 30.6,
    "limit_s": 30.0,
    "signal": None,
    "status": None,
    "id": None,
    "why": "took longer than 30 s\nsecond line",
    "stack": [{"file": "/srv/app.py", "line": 4, "function": "nap\x1b"}],
}
SATURATED = {
    **EVENT,
    "kind": "saturated",
    "command": None,
    "why": "3 connections wait",
    "stack": [],
}
DIED = {
    **EVENT,
    "command": None,
    "kind": "parker_died",
    "signal": "SIGBUS",
    "ran_s": None,
    "why": None,
    "stack": [],
}


def test_incidents_are_shown_with_relative_times(monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr("sys.stdout", io.StringIO())
    monkeypatch.setattr("time.time", lambda: 1102.0)

    assert events_at_terminal.events_at_terminal([], stacks=True) == ["no incidents"]
    assert events_at_terminal.events_at_terminal([EVENT, SATURATED, DIED], stacks=True) == [
        "NO       LAST  KIND         TIMES  COMMAND              RAN  WHY",
        r" 7  1 min ago  killed       1,204  NAP\x1b[2J  31 s of 30 s  took longer than 30 s",
        "    client 10.1.4.17:40112, pid 4712, slot 0, generation 1",
        "    second line",
        r"    nap\x1b  /srv/app.py:4",
        " 7  1 min ago  saturated    1,204  -                   42 s  3 connections wait",
        "    client 10.1.4.17:40112, pid 4712, slot 0, generation 1",
        " 7  1 min ago  parker died  1,204  -                      -  SIGBUS",
        "    client 10.1.4.17:40112, pid 4712, slot 0, generation 1",
    ]


def test_incidents_are_shown_as_lines():
    (first, more, frame) = events_as_lines([EVENT], stacks=True)

    assert first == (
        "event number=7 at=1970-01-01T00:17:22.000Z kind=killed command=NAP\x1b[2J client=10.1.4.17:40112"
        " pid=4712 slot=0 generation=1 ran_s=30.6 limit_s=30.0 why='took longer than 30 s' count=1204"
        " since=1970-01-01T00:16:40.000Z in='nap\\x1b (/srv/app.py:4)'"
    )
    assert more == "    second line"
    assert frame == '    File "/srv/app.py", line 4, in nap\x1b'
