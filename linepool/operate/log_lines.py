"""The forms of a log line: text for people, JSON for programs; and the facts of a record.

An event is logged as ``log.info("worker spawned pid=%d slot=%d", pid, slot)``. The text before the first
fact names the event; each ``key=%...`` is a fact.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import re
import time
import traceback
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from linepool.shortened import LONGEST, shortened

_INDENT = "    "
_BREAK = re.compile(r"\n(?!    )")
_DETAILS = re.compile(r"\s*\S*%.*", re.DOTALL)  # of a format string: from the first value on
_VALUE = re.compile(r"%%|(?:\b(\w+)=)?%[-+ #0]*\d*(?:\.\d+)?[a-z]")
_TIME = "%Y-%m-%dT%H:%M:%S"
_RED, _YELLOW, _PLAIN = "\033[31m", "\033[33m", "\033[0m"
_COLOURS = {logging.WARNING: _YELLOW, logging.ERROR: _RED, logging.CRITICAL: _RED}
_OF_ANY_RECORD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
# sd-daemon(3): the priorities of syslog(3).
_PRIORITIES = ((logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
_DEBUG_PRIORITY = 7


def shown(text: str) -> str:
    """Return a text without control characters; lines after the first are indented.

    So nothing that is logged can look like a line of the log, or reach the terminal as an order to it.
    """
    return _BREAK.sub("\n" + _INDENT, _escaped(text))


def _escaped(text: str) -> str:
    """Return a text without control characters but line breaks; of a long one, without its middle."""
    text = shortened(text)
    return text if text.isprintable() else "".join(map(_visible, text))


def _visible(character: str) -> str:
    if character.isprintable() or character == "\n":
        return character
    return character.encode("unicode_escape").decode()


def traceback_of(error: BaseException, trace: TracebackType | None) -> str:
    """Return the lines of an exception and its causes; their texts are cut before they become lines."""
    whole = traceback.TracebackException(type(error), error, trace, compact=True)
    found = [whole]
    for one in found:
        for name in ("_str", "msg", "text"):  # of a SyntaxError the second and the third
            text = getattr(one, name, None)
            if isinstance(text, str):
                setattr(one, name, shortened(text))
        if isinstance(notes := getattr(one, "__notes__", None), list | tuple):
            one.__notes__ = [shortened(note) if isinstance(note, str) else note for note in notes]
        others = (one.__cause__, one.__context__, *(one.exceptions or ()))
        found += [other for other in others if other is not None]
    return "".join(whole.format()).removesuffix("\n")


def event_of(template: str) -> str:
    """Return the name of an event: its format string without values."""
    return _DETAILS.sub("", template).rstrip(":;,")


@functools.lru_cache(maxsize=512)
def _keys(template: str) -> tuple[str | None, ...]:
    """Return the key of each value of a format string; None: it has none."""
    return tuple(found[1] for found in _VALUE.finditer(template) if found[0] != "%%")


def facts_of(record: logging.LogRecord) -> dict[str, Any]:
    """Return the facts of an event, by key, as values; a stack below the line is the fact ``stack``."""
    if not isinstance(record.args, tuple) or not isinstance(record.msg, str):
        return {}
    facts: dict[str, Any] = {}
    for key, value in zip(_keys(record.msg), record.args, strict=False):
        if key is not None:
            facts[key] = value
        elif isinstance(value, str) and value.startswith("\n"):
            facts["stack"] = _unindented(value.strip("\n"))
    return facts


def attach(record: logging.LogRecord) -> None:
    """Give a record its facts as attributes, as ``extra`` would; those that a record has anyway stay."""
    for key, value in facts_of(record).items():
        if key not in _OF_ANY_RECORD:
            vars(record).setdefault(key, value)


class TextFormatter(logging.Formatter):
    """Time in UTC to the millisecond, level, message; the lines of a traceback are indented.

    Args:
        is_coloured: Show warnings and errors in colour.
        is_for_journal: Begin each line with its priority, as sd-daemon(3) says, and leave out the time.
    """

    converter = staticmethod(time.gmtime)
    default_time_format = _TIME
    default_msec_format = "%s.%03dZ"

    def __init__(self, *, is_coloured: bool = False, is_for_journal: bool = False) -> None:
        when = "" if is_for_journal else "%(asctime)s "
        super().__init__(when + "%(levelname)-7s %(message)s")
        self._is_coloured = is_coloured
        self._is_for_journal = is_for_journal

    def format(self, record: logging.LogRecord) -> str:
        """Return the lines of a record."""
        return self.dressed(shown(super().format(record)), record.levelno)

    def formatException(self, ei: Any) -> str:  # noqa: N802 - the name is that of logging
        """Return the lines of a traceback."""
        return self.formatStack(traceback_of(ei[1], ei[2]))

    def formatStack(self, stack_info: str) -> str:  # noqa: N802 - the name is that of logging
        """Return the lines of a stack."""
        return _INDENT + _escaped(stack_info.strip("\n")).replace("\n", "\n" + _INDENT)

    def announcement(
        self, text: str, _event: str, _facts: Mapping[str, Any], level: int = logging.INFO
    ) -> str:
        """Return a line that other programs wait for: the text alone."""
        return self.dressed(text, level)

    def dressed(self, lines: str, level: int) -> str:
        """Return lines with colours or priorities."""
        if self._is_for_journal:
            return prioritised(lines, level)
        colour = _COLOURS.get(level) if self._is_coloured else None
        if colour is None:
            return lines
        name = logging.getLevelName(level)
        return lines.replace(name, f"{colour}{name}{_PLAIN}", 1)


class JsonFormatter(logging.Formatter):
    """One JSON object (RFC 8259) a line.

    Its members: ``time`` (RFC 3339, UTC, milliseconds), ``level``, ``logger``, ``event``, ``message`` (as in
    the text form), ``process`` (the pid of the process that logs); then the facts, with numbers as numbers;
    ``exception``, ``stack``. ``event`` is only there for the server's own events.

    Args:
        is_for_journal: Begin each line with its priority, as sd-daemon(3) says.
    """

    def __init__(self, *, is_for_journal: bool = False) -> None:
        super().__init__()
        self._is_for_journal = is_for_journal

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        is_event = record.name == "linepool"
        facts = facts_of(record) if is_event else {}
        message = record.getMessage()
        if "stack" in facts:
            message = message.partition("\n")[0]
        others = {k: v for k, v in vars(record).items() if k not in _OF_ANY_RECORD}
        if record.exc_info and not record.exc_text:
            record.exc_text = self.formatException(record.exc_info)
        members = {
            "time": _rfc3339(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            **({"event": event_of(str(record.msg)) or message} if is_event else {}),
            "message": message,
            "process": record.process,
            **{name: value for name, value in {**others, **facts}.items() if name not in _MEMBERS},
        }
        if record.exc_text:
            members["exception"] = _unindented(record.exc_text)
        if record.stack_info:
            members["stack"] = record.stack_info
        return self._line(members, record.levelno)

    def announcement(
        self, text: str, event: str, facts: Mapping[str, Any], level: int = logging.INFO
    ) -> str:
        """Return a line that other programs wait for."""
        members = {
            "time": _rfc3339(time.time()),
            "level": logging.getLevelName(level).lower(),
            "logger": "linepool",
            "event": event,
            "message": text,
            "process": os.getpid(),
            **facts,
        }
        return self._line(members, level)

    def _line(self, members: Mapping[str, Any], level: int) -> str:
        plain = {name: _plain(value) for name, value in members.items()}
        try:
            line = _dumped(plain)
        except ValueError:  # NaN inside of a value, or a value inside of itself
            line = _dumped({k: v if isinstance(v, _SCALAR) else str(v) for k, v in plain.items()})
        return prioritised(line, level) if self._is_for_journal else line


def _dumped(members: Mapping[str, Any]) -> str:
    """Return JSON in one line, with all characters escaped that could do more than show themselves."""
    line = json.dumps(members, ensure_ascii=False, default=str, skipkeys=True, allow_nan=False)
    return line if line.isprintable() else "".join(map(_json_visible, line))


def _json_visible(character: str) -> str:
    if character.isprintable():
        return character
    if "\ud800" <= character <= "\udfff":  # not text: an escape alone is refused by some readers
        return "\\" + _visible(character)
    return json.dumps(character)[1:-1]


_SCALAR = (str, int, float, bool, type(None))
_MEMBERS = frozenset(("time", "level", "logger", "event", "message", "process", "exception"))


def _rfc3339(seconds: float) -> str:
    whole, milliseconds = divmod(int(seconds * 1000), 1000)
    return f"{time.strftime(_TIME, time.gmtime(whole))}.{milliseconds:03d}Z"


def _plain(value: Any) -> Any:
    """Return a value for JSON: texts not too long, numbers that JSON has."""
    if isinstance(value, str):
        return value if len(value) <= LONGEST else _escaped(value)
    if isinstance(value, float) and not abs(value) < float("inf"):
        return str(value)
    return round(value, 6) if isinstance(value, float) else value


def _unindented(block: str) -> str:
    return block.removeprefix(_INDENT).replace("\n" + _INDENT, "\n")


def prioritised(lines: str, level: int) -> str:
    """Return lines that each begin with a priority, as sd-daemon(3) says: ``<4>WARNING ...``."""
    priority = next((found for low, found in _PRIORITIES if level >= low), _DEBUG_PRIORITY)
    return f"<{priority}>" + lines.replace("\n", f"\n<{priority}>")


Form = TextFormatter | JsonFormatter


def form_for(log_format: str, descriptor: int | None) -> Form:
    """Return the form of lines that are written to a descriptor; None: to a file."""
    is_for_journal = descriptor is not None and _is_the_journal(descriptor)
    if log_format == "json":
        return JsonFormatter(is_for_journal=is_for_journal)
    is_coloured = descriptor is not None and not is_for_journal and _shows_colours(descriptor)
    return TextFormatter(is_coloured=is_coloured, is_for_journal=is_for_journal)


def _is_the_journal(descriptor: int) -> bool:
    """Whether systemd has connected a descriptor to its journal (systemd.exec(5), JOURNAL_STREAM)."""
    stream = os.environ.get("JOURNAL_STREAM", "")
    try:
        found = os.fstat(descriptor)
    except OSError:
        return False
    return stream == f"{found.st_dev}:{found.st_ino}"


def _shows_colours(descriptor: int) -> bool:
    """Whether a descriptor is a terminal with colours that the user wants (https://no-color.org)."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM", "dumb") == "dumb":
        return False
    return os.isatty(descriptor)
