"""The forms of log lines, and the facts of records, also as other libraries see them."""

from __future__ import annotations

import ast
import json
import logging
import os
import sys
import traceback
from pathlib import Path

import pytest
import sentry_sdk
import structlog
from pythonjsonlogger.json import JsonFormatter as TheirFormatter
from sentry_sdk.integrations.logging import LoggingIntegration
from sentry_sdk.transport import Transport

import linepool
from linepool.operate import log_lines
from linepool.operate.log_handler import LineHandler
from linepool.operate.log_lines import JsonFormatter, event_of, facts_of, form_for, traceback_of
from linepool.protocols.text import one_line
from linepool.shortened import LONGEST


def event(text: str, *values: object, level: int = logging.INFO) -> logging.LogRecord:
    return logging.LogRecord("linepool", level, __file__, 1, text, values, None)


def as_json(record: logging.LogRecord) -> dict[str, object]:
    line = JsonFormatter().format(record)
    assert "\n" not in line
    found: dict[str, object] = json.loads(line)
    return found


KILLED = ("worker killed pid=%d why=%r ran_s=%.2f limit_s=%g%s", 7, "stuck", 1.23456789, 30.0)
STACK = '\n    Current thread:\n      File "x.py", line 3'


def test_facts_are_values_and_a_stack_is_one_of_them():
    assert facts_of(event(*KILLED, STACK)) == {
        "pid": 7,
        "why": "stuck",
        "ran_s": 1.23456789,
        "limit_s": 30.0,
        "stack": 'Current thread:\n  File "x.py", line 3',
    }
    assert facts_of(event("100%% of %s x=%5.1f y=%-8s", "it", 1.5, "b")) == {"x": 1.5, "y": "b"}
    assert facts_of(event("cannot fork: %s", "no memory")) == {}
    assert facts_of(event("%s")) == {}


def test_an_event_is_named_by_what_its_lines_have_in_common():
    assert event_of("worker killed pid=%d why=%r") == "worker killed"
    assert event_of("cannot fork: %s") == "cannot fork"
    assert event_of("stopping: %s") == "stopping"
    assert event_of("%s") == ""


def test_a_json_line_has_the_facts_as_members():
    found = as_json(event(*KILLED, STACK, level=logging.ERROR))

    assert found.pop("time")
    assert found == {
        "level": "error",
        "logger": "linepool",
        "event": "worker killed",
        "message": "worker killed pid=7 why='stuck' ran_s=1.23 limit_s=30",
        "process": os.getpid(),
        "pid": 7,
        "why": "stuck",
        "ran_s": 1.234568,
        "limit_s": 30.0,
        "stack": 'Current thread:\n  File "x.py", line 3',
    }


def test_what_the_app_logs_has_its_extra_facts_in_json():
    record = logging.LogRecord("shop", logging.INFO, __file__, 1, "sold %s x=%d", ("a\nb", 3), None)
    record.price, record.level, record.when, record.much = 5, "no", Path("x"), float("nan")
    found = as_json(record)

    assert found["message"] == "sold a\nb x=3"
    assert (found["price"], found["when"], found["much"]) == (5, "x", "nan")
    assert found["level"] == "info"
    assert "event" not in found
    assert "x" not in found


def test_an_exception_is_one_member_in_json():
    try:
        raise ValueError("wrong")
    except ValueError:
        record = logging.LogRecord("linepool", logging.ERROR, "", 0, "failed", (), sys.exc_info())
    exception = as_json(record)["exception"]
    assert isinstance(exception, str)
    assert exception.startswith("Traceback (most recent call last):\n  File ")
    assert exception.endswith("\nValueError: wrong")


@pytest.mark.parametrize(
    "extra", [{("a", 1): 2}, float("inf"), object(), b"\xff", "\ud800", [float("nan")]]
)
def test_whatever_is_logged_is_one_line_of_json(extra):
    handler = LineHandler(form=JsonFormatter())
    record = event("x y=%s", extra)
    record.extra = extra
    line = handler.format(record)
    assert json.loads(line, parse_constant=pytest.fail)["event"] == "x"


def test_a_json_line_is_printable_and_says_what_was_said():
    said = "a\x1b\x7f\x9b\u2028\u202e\U000e0001\n ä 漢"
    line = JsonFormatter().format(event("said why=%s", said))
    assert line.isprintable()
    assert "ä 漢" in line
    assert json.loads(line)["why"] == said
    assert json.loads(JsonFormatter().format(event("x why=%s", "\udcff")))["why"] == "\\udcff"


def test_lines_for_the_journal_begin_with_a_priority_and_have_no_time(monkeypatch, tmp_path):
    with open(tmp_path / "journal", "wb") as stream:
        found = os.fstat(stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")
        form = form_for("text", stream.fileno())
        json_form = form_for("json", stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino + 1}")
        assert form_for("text", stream.fileno()).format(event("x"))[0] == "2"

    assert form.format(event("x %s", "\n    y", level=logging.ERROR)) == "<3>ERROR   x \n<3>    y"
    assert form.format(event("x", level=logging.DEBUG)) == "<7>DEBUG   x"
    assert form.announcement("listening on x", "listening", {}) == "<6>listening on x"
    assert json_form.format(event("x", level=logging.WARNING)).startswith('<4>{"time": ')


def test_only_a_terminal_that_wants_colours_gets_them(monkeypatch):
    ours, theirs = os.openpty()
    try:
        warning = event("x", level=logging.WARNING)
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.delenv("NO_COLOR", raising=False)
        assert "\033[33mWARNING\033[0m" in form_for("text", theirs).format(warning)
        assert "\033" not in form_for("text", theirs).format(event("x"))
        assert "\033" not in form_for("json", theirs).format(warning)
        assert "\033" not in form_for("text", None).format(warning)
        monkeypatch.setenv("NO_COLOR", "1")
        assert "\033" not in form_for("text", theirs).format(warning)
        monkeypatch.delenv("NO_COLOR")
        monkeypatch.setenv("TERM", "dumb")
        assert "\033" not in form_for("text", theirs).format(warning)
    finally:
        os.close(ours)
        os.close(theirs)


def templates() -> list[str]:
    """Return the format strings of all events that linepool logs."""
    return [
        node.value
        for file in Path(linepool.__file__).parent.rglob("*.py")
        if "=%" in (text := file.read_text())
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and "=%" in node.value
    ]


def test_no_fact_of_an_event_has_the_name_of_something_that_each_record_has():
    keys = {key for text in templates() for key in log_lines._keys(text) if key}
    assert len(keys) > 30
    assert keys & (log_lines._OF_ANY_RECORD | log_lines._MEMBERS) == set()


# -- other libraries


def written(logger: logging.Logger, formatter: logging.Formatter, capsys) -> dict[str, object]:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    logger.addHandler(handler)
    logger.warning("slow request pid=%d command=%s ran_s=%.2f", 7, "ADD", 1.5)
    found: dict[str, object] = json.loads(capsys.readouterr().err)
    return found


FACTS = {"pid": 7, "command": "ADD", "ran_s": 1.5}


def test_python_json_logger_sees_the_facts(logger, capsys):
    assert written(logger, TheirFormatter(), capsys).items() >= FACTS.items()


def test_structlog_sees_the_facts(logger, capsys):
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.stdlib.ExtraAdder()],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.JSONRenderer(),
        ],
    )
    assert written(logger, formatter, capsys).items() >= FACTS.items()


def test_sentry_sees_the_events_and_their_facts(logger, monkeypatch):
    monkeypatch.setattr(
        logging.Logger, "callHandlers", logging.Logger.callHandlers
    )  # it is replaced
    envelopes = []

    class Kept(Transport):
        def capture_envelope(self, envelope):
            envelopes.append(envelope)

    client = sentry_sdk.Client(
        dsn="http://key@127.0.0.1:9/1",
        transport=Kept,
        default_integrations=False,
        integrations=[LoggingIntegration()],
    )
    with sentry_sdk.isolation_scope() as scope:
        scope.set_client(client)
        logger.info("worker retired pid=%d", 6)
        logger.error("worker killed pid=%d command=%s ran_s=%.2f", 7, "ADD", 1.5)
    (sent,) = [one.get_event() for one in envelopes if one.get_event()]
    assert sent["logentry"]["message"] == "worker killed pid=%d command=%s ran_s=%.2f"
    assert sent["extra"].items() >= FACTS.items()
    assert [one["message"] for one in sent["breadcrumbs"]["values"]] == ["worker retired pid=6"]
    client.close()


def failures(text: str) -> list[BaseException]:
    """Return exceptions with a text in each place that one may have."""
    noted = ValueError("short")
    noted.add_note(text)
    caused, meanwhile = RuntimeError("short"), RuntimeError("short")
    caused.__cause__, meanwhile.__context__ = ValueError(text), KeyError(text)
    wrong = SyntaxError(text, ("app.py", 1, 1, text))
    group = ExceptionGroup(text, [ValueError(text), wrong])
    return [ValueError(text), wrong, noted, caused, meanwhile, group]


def test_a_traceback_is_that_of_python():
    for error in failures("what is wrong"):
        lines = traceback.format_exception(error)
        assert traceback_of(error, error.__traceback__) == "".join(lines).removesuffix("\n")


@pytest.mark.parametrize("character", ["x", "\n"])
def test_a_long_text_is_cut_before_a_traceback_is_made_of_it(character):
    for error in failures(character * 100 * LONGEST):
        assert len(traceback_of(error, None)) < 20 * LONGEST, type(error)


def test_a_traceback_has_as_many_causes_as_there_are():
    error = ValueError("first")
    for _ in range(3000):
        caused = ValueError("next")
        caused.__cause__, error = error, caused
    assert traceback_of(error, None).count("ValueError: next") == 3000


def test_a_long_error_reply_loses_its_middle():
    line = one_line("<" + "\n" * 10 * LONGEST + ">")
    assert line.startswith(b"<\\x0a")
    assert line.endswith(b"\\x0a>")
    assert b" characters ... " in line
    assert len(line) < 5 * LONGEST
