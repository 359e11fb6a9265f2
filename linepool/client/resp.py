"""RESP, the protocol of Redis: the bytes of one connection. No I/O, no clock.

It is version 3, or 2 if the server has no other (redis.io/docs/latest/develop/reference/protocol-spec).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from linepool.client.core import (
    ERROR,
    VALUE,
    Event,
    Kind,
    ProtocolError,
    WholeReplies,
    not_spoken,
    shown,
)
from linepool.client.errors import CallTimeout
from linepool.errors import ClientError, ReplyError, ServerError, UnknownCommand, UsageError

_HELLO = b"*2\r\n$5\r\nHELLO\r\n$1\r\n3\r\n"
_CODE = re.compile(r"([A-Z][A-Z0-9_]*) ")
_FAILURE = re.compile(r"internal error(?:, id ([\w.-]+)(?:, .*)?)?")
_OVERDUE = re.compile(r"(the request )?took longer than .* s")
_USAGE = re.compile(
    r"(wrong number of arguments for|syntax error|value is not an integer|value is not a valid float)"
)
_WITHOUT_HELLO = ("unknown command", "HELLO must be called", "unsupported protocol version")


class _Open(NamedTuple):
    """A list or the like, of which not all has come.

    Attributes:
        mark: Its type.
        size: How many values it has.
        items: Those that have come.
    """

    mark: bytes
    size: int
    items: list[Any]


class RespCore(WholeReplies):
    """One connection, which begins with HELLO 3."""

    protocol = "resp"

    @staticmethod
    def command_in(line: bytes) -> str:
        """Return the first word, which follows its size."""
        return line.split(b"\r\n", 3)[2].decode()

    def __init__(self) -> None:
        super().__init__()
        self._awaited = 0
        self._is_new = True
        self._greets = False  # the reply to HELLO is next
        self._sized = b""  # the mark of a value whose bytes are next
        self._size = 0
        self._open: list[_Open] = []

    @property
    def is_at_rest(self) -> bool:
        """Whether all replies have come, and nothing else."""
        return not (
            self._awaited
            or self._greets
            or self._ahead
            or self._open
            or self._sized
            or self._buffer
        )

    def request(
        self, line: bytes, as_json: bool, name: str = "", trace: str = "", wait_ms: int = 0
    ) -> bytes:
        """Return the bytes of a request; RESP can say nothing of it."""
        del as_json, name, trace, wait_ms
        self._awaited += 1
        if self._is_new:
            self._is_new = False
            self._greets = True
            return _HELLO + line
        return line

    def log_in(self, user: str, password: str) -> bytes:
        """Return the bytes of AUTH; HELLO comes after it, with the first request."""
        self._awaited += 1
        words = (b"AUTH", user.encode(), password.encode())
        return b"*3\r\n" + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)

    def _whole(self) -> Event | None:
        while (got := self._value()) is not None:
            mark, value = got
            if mark == b">":
                return Kind.PUSH, value
            is_error = isinstance(value, ReplyError | CallTimeout)
            if self._greets:
                self._greets = False
                if is_error and not str(value).startswith(_WITHOUT_HELLO):
                    return Kind.REFUSAL, value
                continue
            if not self._awaited:
                if is_error:
                    return Kind.REFUSAL, value
                raise ProtocolError(f"a reply to no request came: {str(value)[:80]!a}")
            self._awaited -= 1
            return (ERROR if is_error else VALUE), value
        return None

    def _value(self) -> tuple[bytes, Any] | None:
        """Return the next value that is part of no other, and its mark; None: more bytes are needed."""
        while (got := self._piece()) is not None:
            mark, value = got
            if mark in _COUNTED and value is not None:
                twice = 2 if mark in b"%|" else 1
                self._open.append(_Open(mark, twice * value, []))
            elif not self._open:
                return got
            else:
                self._open[-1].items.append(value)
            while self._open and len(self._open[-1].items) == self._open[-1].size:
                mark, _, items = self._open.pop()
                if mark == b"|":  # attributes of the value that follows
                    continue
                made = _mapping(items) if mark == b"%" else items
                if not self._open:
                    return mark, made
                self._open[-1].items.append(made)
        return None

    def _piece(self) -> tuple[bytes, Any] | None:
        """Return a mark with its value, or the number of values that follow; None: more bytes are needed."""
        if not self._sized:
            line = self._buffer.line()
            if line is None:
                return None
            mark, text = line[:1], line[1:-1]
            if not line.endswith(b"\r") or mark not in _MARKS:
                raise not_spoken("RESP", line)
            if mark in _SIMPLE:
                return mark, _read(_SIMPLE[mark], text, line)
            size = _read(int, text, line)
            if size == -1 and mark in b"$*":
                return mark, None
            if size < 0:
                raise ProtocolError(f"a reply cannot be understood: {shown(line)}")
            if mark in _COUNTED:
                return mark, size
            self._sized, self._size = mark, size
        data = self._buffer.block(self._size + 2)
        if data is None:
            return None
        if not data.endswith(b"\r\n"):
            raise ProtocolError("a block of bytes does not end after its size")
        mark, self._sized = self._sized, b""
        return mark, _SIZED[mark](data[:-2])


def _read(convert: Callable[[bytes], Any], text: bytes, line: bytes) -> Any:
    try:
        return convert(text)
    except (ValueError, KeyError):
        raise ProtocolError(f"a reply cannot be understood: {shown(line)}") from None


def _mapping(items: Sequence[Any]) -> dict[Any, Any]:
    try:
        return dict(zip(items[::2], items[1::2], strict=True))
    except TypeError:
        raise ProtocolError("a map has keys that are made of other values") from None


def _error_of(line: bytes) -> Exception:
    """Return the error that a server has sent."""
    text = line.decode(errors="backslashreplace")
    code = None
    if found := _CODE.match(text):
        code, text = found[1], text[found.end() :]
    if code not in (None, "ERR"):
        return ClientError(text, code=code)
    error: ReplyError
    if found := _FAILURE.fullmatch(text):
        error = ServerError(text)
        error.id = found[1]
        return error
    if _OVERDUE.fullmatch(text):
        return CallTimeout(text, was_sent=True)
    if text.startswith("unknown command"):
        return UnknownCommand(text)
    what, _, usage = text.partition(" Usage: ")
    if usage or _USAGE.match(text):
        error = UsageError(what, "missing" if text.startswith("wrong number") else "value")
        error.usage = usage
        return error
    return ClientError(text)


_COUNTED = (b"*", b"~", b"%", b">", b"|")
_SIMPLE: Mapping[bytes, Callable[[bytes], Any]] = {
    b"+": bytes.decode,
    b"-": _error_of,
    b":": int,
    b"(": int,
    b",": float,
    b"#": {b"t": True, b"f": False}.__getitem__,
    b"_": lambda _: None,
}
_SIZED: Mapping[bytes, Callable[[bytes], Any]] = {
    b"$": bytes,
    b"=": lambda data: data[4:],
    b"!": _error_of,
}
_MARKS: Iterable[bytes] = {*_COUNTED, *_SIMPLE, *_SIZED}
