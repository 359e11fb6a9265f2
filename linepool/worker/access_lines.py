"""The lines of the access log: from what is known of a request to text or JSON. Runs in workers."""

from __future__ import annotations

import json
import os
import string
import time
from collections.abc import Callable
from typing import Any

from attrs import define

from linepool.protocols.base import Request
from linepool.service import Service
from linepool.session import Session
from linepool.settings.access import FIELDS, JSON

_UNKNOWN = "-"


@define
class Done:
    """A request that is done.

    Attributes:
        command: Its command's name.
        line: Its line; None: nothing was understood.
        request: None: there is no object of it.
        began_ns: On the monotonic clock, as ``ended_ns``.
        waited_ns: Before that; None: that is not known.
        bytes_in: Its length; None: it is a part of another request.
        bytes_out: Of its reply; likewise.
        result: See ``linepool.failures``.
    """

    session: Session
    command: str
    line: bytes | None
    request: Request | None
    began_ns: int
    ended_ns: int
    waited_ns: int | None
    bytes_in: int | None
    bytes_out: int | None
    result: str


class AccessLines:
    """Writes requests as lines.

    Args:
        service: The app.
        line_format: The setting ``access_log_format``.
    """

    def __init__(self, service: Service, line_format: str) -> None:
        self._service = service
        self._second = 0
        self._second_text = ""
        # Between the two clocks; a step of the other one is followed by the next worker.
        self._clocks_ns = time.time_ns() - time.monotonic_ns()
        self._pid = os.getpid()
        self._fields: dict[str, Callable[[Done], Any]] = {
            "time": self._time,
            "id": lambda done: done.request.id if done.request else Request.new_id(),
            "client": lambda done: done.session.peer,
            "user": lambda done: done.session.user,
            "listener": lambda done: done.session.listener,
            "command": lambda done: done.command,
            "request": self._words,
            "result": lambda done: done.result,
            "duration": lambda done: _seconds(done.ended_ns - done.began_ns),
            "waited": lambda done: None if done.waited_ns is None else _seconds(done.waited_ns),
            "bytes_in": lambda done: done.bytes_in,
            "bytes_out": lambda done: done.bytes_out,
            "pid": lambda done: self._pid,
        }
        self._is_json = line_format == JSON
        self._parts: list[tuple[str, Callable[[Done], Any] | None]] = []
        if not self._is_json:
            for text, name, _, _ in string.Formatter().parse(line_format):
                self._parts.append((text, None if name is None else self._fields[name]))

    def line(self, done: Done) -> str:
        """Return the line about a request, without its ending."""
        if self._is_json:
            values = {name: self._fields[name](done) for name in FIELDS}
            return json.dumps(values)  # in ASCII, so without control characters
        return "".join(
            [text + (_word(field(done)) if field else "") for text, field in self._parts]
        )

    def _time(self, done: Done) -> str:
        milliseconds = (done.ended_ns + self._clocks_ns) // 1_000_000
        second = milliseconds // 1000
        if second != self._second:
            self._second = second
            self._second_text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._second_text}.{milliseconds % 1000:03d}Z"

    def _words(self, done: Done) -> str:
        if done.line is None or not self._service.log_lines:
            return done.command
        words = self._service.logged(done.line).words
        return words.replace('"', "\\x22")


def _seconds(ns: int) -> float:
    return ns / 1e9


def _word(value: Any) -> str:
    """Return a value as text that holds no control character."""
    if type(value) is float:
        return f"{value:.6f}"
    if value is None or value == "":
        return _UNKNOWN
    text = str(value)
    return text if text.isprintable() else "".join(map(_visible, text))


def _visible(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode()
