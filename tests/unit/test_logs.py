"""What makes a record safe to write, and how many of a kind are written."""

import logging
import sys
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from linepool.faults import fault_of, reference
from linepool.operate.log_handler import LineHandler
from linepool.operate.log_limit import FIRST_REPORT, REPORTS, WINDOW, LogLimit
from linepool.operate.log_lines import shown

MOST = 6
ERROR, INFO, DEBUG = logging.ERROR, logging.INFO, logging.DEBUG


def admitted(limit, count, now, text="handler failed", level=ERROR):
    return sum(limit.admits(level, text, now) for _ in range(count))


def reported(limit, now, **more):
    return [left.count for left in limit.ended(now, **more)]


@given(st.text())
def test_a_shown_text_is_printable_and_each_further_line_is_indented(text):
    first, *others = shown(text).split("\n")
    assert first.isprintable()
    assert all(line.startswith("    ") and line.isprintable() for line in others)
    assert shown(shown(text)) == shown(text)


@pytest.mark.parametrize("text", ["ä 漢字", "a\\x1b", "    indented", ""])
def test_a_printable_text_is_shown_as_it_is(text):
    assert shown(text) == text


def test_of_a_very_long_text_the_beginning_and_the_end_are_shown():
    text = shown("a" * 1_000_000 + "\x1b\nend")
    assert len(text) < 20_000
    assert text.startswith("aaa")
    assert text.endswith("a\\x1b\n    end")
    assert " characters ... " in text


def test_a_traceback_keeps_its_shape_below_its_event():
    try:
        raise ValueError("wrong")
    except ValueError:
        record = logging.LogRecord("x", ERROR, "", 0, "failed", (), sys.exc_info())
        expected = ["    " + line for line in traceback.format_exc().splitlines()]

    assert LineHandler().format(record).splitlines()[1:] == expected


def test_few_lines_of_a_kind_are_written_in_a_minute_and_all_others_are_counted():
    limit = LogLimit(MOST)
    assert admitted(limit, 1000, 100.0) == MOST - REPORTS
    assert reported(limit, 100.0 + FIRST_REPORT - 1) == []
    assert reported(limit, 100.0 + FIRST_REPORT) == [996]
    assert reported(limit, 100.0 + FIRST_REPORT + 1) == []
    assert admitted(limit, 10, 100.0 + WINDOW - 1) == 0
    assert reported(limit, 100.0 + WINDOW) == [10]
    assert admitted(limit, 5, 100.0 + WINDOW) == MOST - REPORTS


def test_in_any_minute_of_a_flood_reports_and_lines_are_within_the_limit():
    limit = LogLimit(MOST)
    written = {}
    for second in range(1000, 1600):
        lines = sum(limit.admits(ERROR, "flood", second) for _ in range(50))
        written[second] = lines + len(reported(limit, second))
    for begin in range(1000, 1600, int(WINDOW)):
        assert sum(written[second] for second in range(begin, begin + int(WINDOW))) <= MOST + 1


def test_what_was_left_out_before_the_end_of_a_window_is_not_forgotten_in_the_next():
    limit = LogLimit(MOST)
    admitted(limit, 7, 100.0)
    assert admitted(limit, 1, 100.0 + WINDOW) == 1
    assert reported(limit, 100.0 + WINDOW) == [3]


def test_kinds_and_levels_are_counted_apart():
    limit = LogLimit(MOST)
    for text in map(str, range(50)):
        assert admitted(limit, 100, 100.0, text) == MOST - REPORTS
    assert admitted(limit, 1000, 100.0, "a", INFO) == 10 * MOST - REPORTS
    assert admitted(limit, 1000, 100.0, "a", DEBUG) == 1000
    assert sum(reported(limit, 100.0, all_kinds=True)) == 50 * 96 + 942


def test_more_kinds_than_there_are_places_for_share_them_and_the_number_of_lines_stays_bounded():
    limit = LogLimit(MOST)
    assert sum(admitted(limit, 1, 100.0, f"kind {number}") for number in range(5000)) < 300


@pytest.mark.parametrize("most", [0, 1])
def test_without_a_limit_all_lines_are_written_and_with_the_least_one(most):
    assert admitted(LogLimit(most), 100, 1.0) == (1 if most else 100)


def test_nonsense_in_the_shared_page_does_no_more_than_cost_lines():
    limit = LogLimit(MOST)
    for byte in (0xFF, 0x7F, 0x41):
        limit._page[:] = bytes([byte]) * len(limit._page)
        admitted(limit, 10, 100.0)
        list(limit.ended(1e9))
        assert admitted(limit, 10, 1e9 + 2 * WINDOW, str(byte)) <= 10


def error_of(call):
    with pytest.raises(ValueError, match="invalid") as raised:
        call()
    return raised.value


def test_a_fault_is_known_by_its_type_and_places_not_by_its_text():
    errors = [error_of(lambda text=text: int(text)) for text in ("x", "secret")]
    assert fault_of(errors[0]) == fault_of(errors[1])
    assert "secret" not in fault_of(errors[1])
    assert fault_of(error_of(lambda: int("x"))) != fault_of(errors[0])
    ids = [reference(error) for error in errors]
    assert ids[0][:4] == ids[1][:4]
    assert all(len(number) == 8 for number in ids)
