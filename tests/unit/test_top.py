"""What ``linepool top`` shows of the states of a server, in terminals of all sizes."""

from __future__ import annotations

import copy
import io
import math
import re
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linepool.operate import shown_at_terminal
from linepool.operate.screen import _keys_in
from linepool.operate.tables import width
from linepool.operate.top.history import History, View
from linepool.operate.top.layout import Choice, as_one_line, chosen, frame, snapshot
from linepool.operate.top.lines import plain, sparkline
from linepool.operate.top.looks import WRONG, look_of
from linepool.operate.top.sections import stacks
from linepool.operate.top.signs import ASCII, UNICODE, signs_for

KINDS = ("client_error", "server_error", "timeout", "killed", "died", "disconnected")
SLOW = [(88, 4), (92, 2)]  # buckets: about 4 and 8 s
QUICK = [(48, 95), (60, 5)]  # about 4 and 30 ms
KILLED = {
    "number": 1,
    "change": 1,
    "first": 990.0,
    "last": 993.0,
    "count": 2,
    "kind": "killed",
    "command": "SEARCH",
    "client": "10.0.0.7:4711",
    "pid": 4712,
    "ran_s": 30.2,
    "limit_s": 30.0,
    "stack": [{"file": "/app/shop.py", "line": 7, "function": "search"}],
}


@pytest.fixture(autouse=True)
def _terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), "utf-8")
    monkeypatch.setattr(shown_at_terminal, "sys", SimpleNamespace(stdout=stream))


def worker(slot: int, command: str | None = None, ran: float = 0.0, **more: Any) -> dict[str, Any]:
    return {
        "slot": slot,
        "pid": 4711 + slot,
        "state": "busy" if command else "idle",
        "since_s": ran,
        "command": command,
        "request_s": ran if command else None,
        "timeout_s": 30.0 if command else None,
        **more,
    }


def state(
    at: float, workers: Sequence[Mapping[str, Any]], most: int, **more: Any
) -> dict[str, Any]:
    busy = sum(one["state"] == "busy" for one in workers)
    tally = {
        "idle": len(workers) - busy,
        "busy": busy,
        "total": len(workers),
        "min": 2,
        "max": most,
    }
    return {
        "name": "shop",
        "version": "0.4",
        "pid": 4700,
        "uptime_s": at,
        "state": "ready",
        "listeners": [{"address": "127.0.0.1:7000", "backlog": 0, "backlog_max": 9}],
        "tally": tally,
        "waiting": 0,
        "counters": {"kills": 0, "crashes": 0, "saturated_s": 0.0},
        "brakes": [],
        "workers": list(workers),
        **more,
    }


def command(
    name: str, buckets: Sequence[tuple[int, int]], took: float, **failed: int
) -> dict[str, Any]:
    requests = sum(count for _, count in buckets)
    kinds = dict.fromkeys(KINDS, 0) | failed
    return {
        "command": name,
        "requests": requests,
        "ok": requests,
        **kinds,
        "handler_s": took,
        "buckets": list(buckets),
    }


def stats(*commands: Mapping[str, Any]) -> dict[str, Any]:
    queue = {"reads": 0, "waited_s": 0.0, "buckets": []}
    return {"commands": list(commands), "queue": queue, "slowest": []}


def view_of(
    *states: Mapping[str, Any],
    served: Mapping[str, Any] | None = None,
    events: Sequence[Mapping[str, Any]] = (),
    of_all_time: bool = False,
) -> View:
    """Return the view of states one after the other; at the last one, commands have been served."""
    history = History()
    for number, one in enumerate(states, 1):
        found = served if served and number == len(states) else stats()
        history.add(look_of(one, found, events, 1000.0))
    return history.view(of_all_time=of_all_time)


def saturated(count: int = 8) -> View:
    """Return a server whose workers are all busy, and whose clients wait."""
    commands = [command("SEARCH", SLOW, 200.0, killed=1, timeout=2), command("STOCK", QUICK, 0.5)]
    workers = [worker(slot, "SEARCH", 29.0 - slot % 28) for slot in range(count)]
    full = [state(at, workers, count, waiting=37) for at in (100.0, 105.0, 115.0)]
    return view_of(*full, served=stats(*commands), events=[KILLED])


def quiet() -> View:
    return view_of(*(state(at, [worker(0), worker(1)], 8) for at in (100.0, 101.0)))


def shown(view: View, size: tuple[int, int] = (80, 24), choice: Choice | None = None) -> list[str]:
    return [plain(line) for line in frame(view, size, UNICODE, choice)]


def test_a_saturated_server_at_80_columns():
    lines = shown(saturated())

    assert lines[0].startswith("shop  linepool 0.4  up 1 min 55 s  127.0.0.1:7000")
    assert lines[0].endswith("00:16:40 UTC")
    assert lines[1] == "▲ 37 clients wait, and the pool cannot grow."
    assert "8 of 8 workers are busy, 8 with SEARCH." in lines[2]
    text = "\n".join(lines)
    assert re.search(r"8 of 8 +37  for 15 s +11  0.3 failed +7.3 s", text)
    assert "pool ▲▲▲▲▲▲■■  ▲ near its limit  ■ busy" in text
    assert re.search(r"\n +0 +4711  SEARCH +▬{30,}·+┃  29 s of 30 s\n", text)
    assert "\n      3 more, the longest for 24 s\n" in text
    assert re.search(r"\nSEARCH +█+ 100 % +0.4 +3.8 s +8 s +50 % +1\n", text)
    assert re.search(r"\nSTOCK +0.2 % +6.7 +3.6 ms +30 ms +0 +0\n", text)
    assert (
        "▲ killed  7 s ago         2 times SEARCH ran 30 s of 30 s, in search (shop.py:7)" in text
    )
    assert lines[-1].startswith("q quit")
    assert len(lines) == 24


def test_a_quiet_server():
    lines = shown(quiet())

    assert lines[1] == "● No client waits: 0 of 2 workers are busy."
    assert "pool □□  □ idle" in lines
    assert "no request runs" in lines
    assert re.search(r"0 of 2  max 8 +0 +0 +-", "\n".join(lines))


def test_requests_that_wait_without_a_worker_are_in_the_head():
    topics = [{"topic": "jobs", "command": "TAKE", "requests": 3, "oldest_s": 12.0}]
    some = {"requests": 3, "oldest_s": 12.0, "topics": topics}
    found = view_of(*(state(at, [worker(0)], 8, waiters=some) for at in (100.0, 101.0)))
    line = "  3 requests wait without a worker, the longest for 12 s, 3 for jobs (TAKE)"

    assert line in shown(found)
    assert line in [plain(one) for one in snapshot(found, (80, 24), UNICODE)]
    assert len(shown(found, (80, 5))) == 5


def test_below_60_columns_figures_are_a_list_and_there_are_no_bars():
    lines = shown(saturated(), (50, 20))

    assert "workers busy  8 of 8" in lines
    assert "requests/s    11  0.3 failed" in lines
    assert not any("▬" in line for line in lines)
    assert any(re.fullmatch(r" +0 +4711  SEARCH +29 s of 30 s", line) for line in lines)


def test_a_wide_terminal_shows_all():
    text = "\n".join(shown(saturated(32), (200, 60)))

    assert all(re.search(rf"\n +{slot} +{4711 + slot}  SEARCH ", text) for slot in range(32))
    assert "┃" in text
    assert max(map(len, re.findall("▬+·*┃", text))) == 60


@given(
    st.integers(1, 220), st.integers(1, 70), st.integers(0, 300), st.sampled_from(list("acwik? "))
)
@settings(max_examples=60, deadline=None)
def test_a_frame_fits_every_terminal(columns, rows, workers, key):
    view = saturated(workers) if workers else quiet()
    choice = chosen(chosen(Choice(), key), "down")

    lines = frame(view, (columns, rows), UNICODE, choice, stacks([]))

    assert len(lines) == rows
    assert all(sum(width(text) for text, _ in line) <= columns for line in lines)
    if rows >= 9 and columns >= 60 and key not in "k?":
        text = "\n".join(map(plain, lines))
        assert "workers busy" in text
        assert "37 clients wait" in text if workers else "No client waits" in text


def test_incidents_give_way_to_requests_and_commands():
    view = saturated()

    assert not any("killed  7 s" in line for line in shown(view, (80, 14)))
    assert any("SEARCH" in line and "┃" in line for line in shown(view, (80, 14)))
    assert any("killed  7 s" in line for line in shown(view, (80, 24)))


def test_keys_choose_what_is_shown():
    view = saturated(40)
    only_commands = shown(view, choice=chosen(Choice(), "c"))
    only_workers = shown(view, choice=chosen(Choice(), "w"))

    assert not any("┃" in line for line in only_commands)
    assert not any(line.startswith("STOCK") for line in only_workers)
    assert only_workers[-2] == "1 to 14 of 42 lines: arrows, page up, page down"
    further = chosen(chosen(Choice(), "w"), "page down")
    assert shown(view, choice=further)[-2].startswith("11 to 24 of 42")
    assert chosen(further, "w") == Choice()
    assert chosen(further, "escape") == Choice()
    assert chosen(Choice(), "s").order == "rate"
    assert chosen(chosen(Choice(), "s"), "t").order == "time"
    assert chosen(Choice(), "x") == Choice()
    assert "paused" in shown(view, choice=chosen(Choice(), " "))[0]
    assert any("p99: 99 of 100" in line for line in shown(view, choice=chosen(Choice(), "?")))


def test_all_incidents_are_shown_with_their_stacks():
    lines = shown(saturated(), choice=chosen(Choice(), "i"))

    at = lines.index(
        "▲ killed  7 s ago         2 times SEARCH ran 30 s of 30 s, in search (shop.py:7)"
    )
    assert lines[at + 1 : at + 3] == [
        "  client 10.0.0.7:4711, pid 4712",
        "  search  /app/shop.py:7",
    ]
    narrow = shown(saturated(), (50, 24), chosen(Choice(), "i"))
    assert any(line.endswith("(shop.py:7)") for line in narrow)


def test_commands_are_sorted_by_what_was_chosen():
    rows = [
        line.split(" ")[0]
        for line in shown(saturated(), choice=Choice(page="commands", order="rate"))
    ]

    assert rows.index("STOCK") < rows.index("SEARCH")


def test_a_silent_server_is_called_silent():
    lines = [
        plain(line) for line in frame(quiet(), (80, 24), UNICODE, trouble="Connection refused")
    ]

    assert lines[1] == "▲ No answer since 00:16:40 UTC; trying again."
    assert lines[2] == "  What is shown is as of then. Connection refused"


def test_each_state_has_a_shape_of_its_own():
    for signs in (UNICODE, ASCII):
        assert len(set(signs.worker.values())) == len(signs.worker)
        assert len(set(signs.level.values())) == len(signs.level)
    assert all(sign.isascii() for sign in (*ASCII.worker.values(), *ASCII.heights, ASCII.bar))


def test_without_unicode_all_is_ascii():
    for size in ((80, 24), (40, 12)):
        for line in frame(saturated(), size, ASCII):
            assert plain(line).isascii()


@pytest.mark.parametrize(
    ("encoding", "environment", "signs"),
    [
        ("utf-8", {}, UNICODE),
        ("UTF-8", {"LANG": "de_DE.UTF-8"}, UNICODE),
        ("utf-8", {"LC_ALL": "C", "LANG": "de_DE.UTF-8"}, ASCII),
        ("ascii", {}, ASCII),
        ("iso8859-1", {"LANG": "de_DE"}, ASCII),
        ("utf-8", {"LC_ALL": "", "LC_CTYPE": "C.utf8"}, UNICODE),
    ],
)
def test_the_locale_decides_on_the_characters(encoding, environment, signs):
    assert signs_for(encoding, environment) is signs


def test_what_a_server_says_does_nothing_to_the_terminal():
    evil = "\x1b[2J\x07\r\n\u202e"
    workers = [worker(0, f"GET{evil}", 3.0, state="busy")]
    topics = [{"topic": evil, "command": evil, "requests": 1, "oldest_s": 1.0}]
    some = {"requests": 1, "oldest_s": 1.0, "topics": topics}
    event = {**KILLED, "command": evil, "why": evil, "kind": evil}
    found = view_of(
        state(1.0, workers, 2, name=evil, version=evil),
        state(2.0, workers, 2, name=evil, version=evil, waiting=3),
        state(9.0, workers, 2, name=evil, version=evil, waiting=3, waiters=some),
        served=stats(command(evil, QUICK, 1.0, killed=9)),
        events=[event],
        of_all_time=True,
    )
    row = {"slot": 0, "pid": 1, "state": evil, "command": evil, "for_s": 1.0, "no_stack": evil}
    traced = stacks([{**row, "stack": [{"file": evil, "line": 1, "function": evil}]}])
    pages = [Choice(), Choice(page="commands"), Choice(page="incidents"), Choice(page="stacks")]
    lines = [
        line for page in pages for line in frame(found, (120, 40), UNICODE, page, traced, evil)
    ]
    lines += snapshot(found, (120, 40), UNICODE)

    assert all(plain(line).isprintable() for line in lines)
    assert as_one_line(found).isprintable()


def test_a_request_without_a_limit_has_no_bar():
    view = view_of(*(state(at, [worker(0, "WAIT", 99.0, timeout_s=None)], 2) for at in (1.0, 2.0)))

    (line,) = [line for line in shown(view) if "WAIT" in line]
    assert "no limit" in line
    assert "┃" not in line
    assert line.endswith("1 min 39 s")


def test_figures_are_of_the_last_seconds_and_commands_of_the_last_minute():
    history = History()
    for at in range(200):
        served = stats(command("ADD", [(48, 10 * at)], 0.04 * at), command("OLD", [(48, 5)], 9.0))
        history.add(look_of(state(float(at), [worker(0)], 2), served, [], 1000.0 + at))
    view = history.view()

    assert view.point.requests == pytest.approx(10.0)
    assert view.period_s == pytest.approx(60.0)
    assert [row.name for row in view.commands] == ["ADD"]
    assert view.commands[0].rate == pytest.approx(10.0)
    assert view.commands[0].share == 1.0
    assert [row.name for row in history.view(of_all_time=True).commands] == ["OLD", "ADD"]
    assert len(view.points) == 200


def test_a_restarted_server_begins_anew():
    history = History()
    for at, requests in ((50.0, 1000), (51.0, 1010), (0.1, 1), (1.1, 3)):
        served = stats(command("ADD", [(48, requests)], 1.0))
        history.add(look_of(state(at, [worker(0)], 2), served, [], 1000.0))

    assert history.view().point.requests == pytest.approx(2.0)
    assert len(history.view().points) == 2


def test_a_line_for_a_log():
    line = as_one_line(saturated())

    assert re.fullmatch(
        r"1970-01-01T00:16:40Z name=shop state=ready level=bad busy=8 workers=8 max=8 waiting=37"
        r" waiting_s=15\.0 requests_per_s=10\.6 failed_per_s=0\.3 p50_s=0\.00\d+ p99_s=7\.\d+"
        r" waited_p99_s=0\.0 longest_s=29\.0 verdict='37 clients wait, and the pool cannot grow\.'",
        line,
    )


def test_a_snapshot_is_as_long_as_it_needs_to_be():
    lines = [plain(line) for line in snapshot(saturated(32), (80, 24), UNICODE)]

    assert sum("┃" in line for line in lines) == 32
    assert "q quit" not in "\n".join(lines)


def test_a_sparkline_reaches_its_top():
    assert sparkline([None, 0.0, 1.0, 2.0], "▁▂▃▄▅▆▇█", 2.0) == " ▁▅█"
    assert sparkline([0.0, 0.0], ".:", 0.0) == ".."


ODD: tuple[Any, ...] = (
    None,
    -1,
    2.5,
    1e300,
    math.inf,
    math.nan,
    "x",
    [],
    {},
    [3],
    {"x": 1},
    [[1, 2]],
)


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_what_is_not_a_state_is_refused_and_all_else_is_shown(data):
    """A server may be of another version, or another program."""
    topics = [{"topic": "jobs", "command": "TAKE", "requests": 1, "oldest_s": 1.0}]
    some = {"requests": 1, "oldest_s": 1.0, "topics": topics}
    known = state(1.0, [worker(0, "GET", 3.0)], 2, waiting=1, waiters=some)
    served = stats(command("GET", QUICK, 1.0, killed=9))
    whole: Any = copy.deepcopy({"state": known, "stats": served, "events": [KILLED]})
    for _ in range(data.draw(st.integers(1, 3))):
        where = data.draw(st.sampled_from(list(whole.values())))
        while where:
            keys = list(where) if isinstance(where, dict) else list(range(len(where)))
            key = data.draw(st.sampled_from(keys))
            inner = where[key]
            if isinstance(inner, dict | list) and inner and data.draw(st.booleans()):
                where = inner
                continue
            where[key] = copy.deepcopy(data.draw(st.sampled_from(ODD)))
            break
    history = History()
    try:
        looks = [
            look_of({**whole["state"], "uptime_s": at}, whole["stats"], whole["events"], 0.0)
            for at in (1.0, 99.0)
        ]
    except WRONG:
        return
    for look in looks:
        history.add(look)
    for page in ("all", "commands"):
        assert len(frame(history.view(), (80, 24), UNICODE, Choice(page=page))) == 24
    assert as_one_line(history.view())
    assert snapshot(history.view(), (80, 24), UNICODE)


def test_keys_without_a_meaning_are_left_out():
    assert list(_keys_in("a\033[A\033OB\033[D\033[15~\033[1;5C\033q\r é")) == [
        *("a", "up", "down", "escape", "q", "enter", " ", "é")
    ]
