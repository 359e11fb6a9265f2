"""The lines of the access log: from what is known of a request to text or JSON. Runs in workers."""

from __future__ import annotations

import os
import string
import time
from collections.abc import Callable, Mapping
from json.encoder import encode_basestring_ascii

from attrs import define

from linepool.faults import new_id
from linepool.protocols.base import Request
from linepool.protocols.framing import given_id
from linepool.service import Service
from linepool.session import Session
from linepool.settings.access import FIELDS, JSON


@define
class Done:
    """A request that is done.

    Attributes:
        command: Its command's name.
        line: Its line; None: nothing was understood.
        request: None if the compiled core served it without an object for it.
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
        pid: Of the worker; None: this process is the worker.
        services: The app of each listener that has a table, by the listener's name.
    """

    def __init__(
        self,
        service: Service,
        line_format: str,
        pid: int | None = None,
        services: Mapping[str, Service] | None = None,
    ) -> None:
        self._service = service
        self._services = services or {}
        self._pid = pid or os.getpid()
        self._second = 0
        self._second_text = ""
        # Between the two clocks; a step of the other one is followed by the next worker.
        self._clocks_ns = time.time_ns() - time.monotonic_ns()
        self._is_json = is_json = line_format == JSON
        if is_json:
            members = ", ".join(f'"{name}": {{{name}}}' for name in FIELDS)
            line_format = f"{{{{{members}}}}}"
        fields = self._fields(is_json=is_json)
        self._template, self._values = "", list[Callable[[Done], object]]()
        for text, name, _, _ in string.Formatter().parse(line_format):
            self._template += text.replace("%", "%%")
            if name is not None:
                form, value = fields[name]
                self._template += form
                self._values.append(value)

    def line(self, done: Done) -> str:
        """Return the line about a request, without its ending."""
        return self._template % tuple([value(done) for value in self._values])

    def _fields(self, *, is_json: bool) -> dict[str, tuple[str, Callable[[Done], object]]]:
        """Return the form of each field, and what returns its value."""
        word = '"%s"' if is_json else "%s"  # that holds nothing which is to be escaped
        none = "null" if is_json else "-"
        escaped = encode_basestring_ascii if is_json else _word

        def or_none(text: str | None) -> str:
            return none if text is None else escaped(str(text))

        def waited(done: Done) -> str:
            return none if done.waited_ns is None else f"{done.waited_ns / 1e9:.6f}"

        return {
            "time": (word, self._time),
            "id": (word, _id),
            "client": ("%s", lambda done: or_none(done.session.peer or None)),
            "user": ("%s", lambda done: or_none(done.session.user)),
            "listener": ("%s", lambda done: or_none(done.session.listener or None)),
            "app": ("%s", lambda done: or_none(self._service_of(done).name or None)),
            "command": ("%s", lambda done: escaped(done.command)),
            "request": ("%s", lambda done: escaped(self._words(done))),
            "result": (word, lambda done: done.result),
            "duration": ("%.6f", lambda done: (done.ended_ns - done.began_ns) / 1e9),
            "waited": ("%s", waited),
            "bytes_in": ("%s", lambda done: none if done.bytes_in is None else done.bytes_in),
            "bytes_out": ("%s", lambda done: none if done.bytes_out is None else done.bytes_out),
            "pid": ("%d", lambda _: self._pid),
        }

    def _service_of(self, done: Done) -> Service:
        return self._services.get(done.session.listener, self._service)

    def _time(self, done: Done) -> str:
        milliseconds = (done.ended_ns + self._clocks_ns) // 1_000_000
        second = milliseconds // 1000
        if second != self._second:
            self._second = second
            self._second_text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._second_text}.{milliseconds % 1000:03d}Z"

    def _words(self, done: Done) -> str:
        service = self._service_of(done)
        if done.line is None or not service.log_lines:
            return done.command
        words = service.logged(done.line).words
        return words if self._is_json else words.replace('"', "\\x22")


def _id(done: Done) -> str:
    if done.request is not None:
        return done.request.id
    return given_id(done.line or b"") or new_id()


def _word(text: str) -> str:
    """Return a text without control characters."""
    if not text:
        return "-"
    return text if text.isprintable() else "".join(map(_visible, text))


def _visible(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode()
