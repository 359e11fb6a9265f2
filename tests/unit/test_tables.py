"""What commands show at a terminal: widths, units, colours."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest

from linepool.operate import shown_at_terminal, tables
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
