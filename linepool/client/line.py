"""The bytes of one connection: requests and replies of the line protocol, framed. No I/O, no clock.

A reply is found in time that is linear in its length, however its bytes are cut.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any, NoReturn

from linepool.client.core import (
    END,
    ENDED,
    ERROR,
    VALUE,
    Core,
    Event,
    Kind,
    ProtocolError,
    arguments_text,
    json_value,
    not_spoken,
    shown,
)
from linepool.client.errors import CallTimeout
from linepool.errors import ClientError, ReplyError, ServerError, UnknownCommand, UsageError

_MOST_UNFRAMED = 1024 * 1024  # bytes of a line that is not a reply or a part of one
_OURS = (b"@", b"= ", b"- ")


class LineCore(Core):
    """One connection."""

    protocol = "line"

    @staticmethod
    def command_in(line: bytes) -> str:
        """Return the first word."""
        return line.split(None, 1)[0].decode()

    def __init__(self) -> None:
        super().__init__()
        self._buffer = b""
        self._at = 0
        self._parts: list[bytes] = []  # of what cannot be read before more has come
        self._waited_for = 0  # of a line, in bytes
        self._missing = 0  # of a block, in bytes; 0: a line is awaited
        self._block = -1  # size of the block that is next; -1: a line is
        self._sent = 0
        self._heads: deque[bytes] = deque()
        self._is_inside = False  # a reply of several values

    @property
    def is_at_rest(self) -> bool:
        """Whether all replies have come, and nothing else."""
        return not (self._heads or self._parts or self._at < len(self._buffer))

    def request(
        self, line: bytes, as_json: bool, name: str = "", trace: str = "", wait_ms: int = 0
    ) -> bytes:
        """Return the bytes of a request.

        Args:
            line: The command, a blank, and its arguments.
            as_json: They are one JSON value.
            name: Its id in logs and errors; "": none.
            trace: The ``traceparent`` of the caller (W3C Trace Context); "": none.
            wait_ms: How long its reply is waited for; 0: without limit.
        """
        self._sent += 1
        self._heads.append(b"@%d = " % self._sent)
        attributes = b",j" if as_json else b""
        if wait_ms and name and not trace:  # the frequent case, at once
            given = (self._sent, attributes, wait_ms, name.encode(), line)
            return b"@i=%d%b,t=%d,r=%b %b\n" % given
        if wait_ms:
            attributes += b",t=%d" % wait_ms
        if name:
            attributes += b",r=%b" % name.encode()
        if trace:
            attributes += b",p=%b" % trace.encode()
        return b"@i=%d%b %b\n" % (self._sent, attributes, line)

    def log_in(self, user: str, password: str) -> bytes:
        """Return the bytes of AUTH."""
        return self.request(b"AUTH %b" % arguments_text((user, password), {}), as_json=True)

    def feed(self, data: bytes) -> None:
        """Take bytes from the server, cut anywhere.

        Raises:
            ProtocolError: There are none, as the stream has ended.
        """
        if not data:
            raise ProtocolError(ENDED)
        if self._parts:
            self._parts.append(data)
            if self._missing:
                self._missing -= len(data)
                if self._missing > 0:
                    return
                self._missing = 0
            elif b"\n" not in data:
                self._waited_for += len(data)
                if self._waited_for > _MOST_UNFRAMED and not self._parts[0].startswith(_OURS):
                    raise not_spoken("framed replies", self._parts[0])
                return
            data = b"".join(self._parts)
            self._parts.clear()
            self._waited_for = 0
        elif self._at < len(self._buffer):
            data = self._buffer[self._at :] + data
        self._buffer = data
        self._at = 0

    def reply(self) -> Event | None:
        """Return the next reply as a whole: a VALUE, SEVERAL, an ERROR or a REFUSAL.

        None: more bytes are needed.

        Raises:
            ProtocolError: As in ``event``.
        """
        if self._heads and not self._is_inside and self._block < 0:  # the frequent case, at once
            head, buffer, at = self._heads[0], self._buffer, self._at
            if buffer.startswith(head, at) and (end := buffer.find(b"\n", at)) >= 0:
                self._heads.popleft()
                self._at = end + 1
                return VALUE, self._json(buffer[at + len(head) : end])
        return super().reply()

    def event(self) -> Event | None:
        """Return what has come next, or None: more bytes are needed.

        Raises:
            ProtocolError: It is not a reply to what was sent.
        """
        while not self._parts:
            if self._block >= 0:
                return self._data_block()
            at = self._at
            buffer = self._buffer
            end = buffer.find(b"\n", at)
            if end < 0:
                if at < len(buffer):
                    self._parts.append(buffer[at:])
                self._buffer = b""
                self._at = 0
                return None
            self._at = end + 1
            if not self._is_inside:
                head = self._heads[0][:-2] if self._heads else b"@ "
                if not buffer.startswith(head, at):
                    if (event := self._aside(buffer[at:end])) is not None:
                        return event
                    continue
                at += len(head)
            mark = buffer[at : at + 2]
            if mark == b"= ":
                return self._value(self._json(buffer[at + 2 : end]))
            if (event := self._other(mark, buffer[at:end])) is not None:
                return event
        return None

    def _value(self, value: Any) -> Event:
        if self._is_inside:
            return Kind.ITEM, value
        self._heads.popleft()
        return VALUE, value

    def _data_block(self) -> Event | None:
        stop = self._at + self._block
        buffer = self._buffer
        if len(buffer) <= stop:
            self._missing = stop + 1 - len(buffer)
            self._parts.append(buffer[self._at :])
            self._buffer = b""
            self._at = 0
            return None
        if buffer[stop] != ord("\n"):
            raise ProtocolError("a block of bytes does not end after its size")
        data = buffer[self._at : stop]
        self._at = stop + 1
        self._block = -1
        return self._value(data)

    def _other(self, mark: bytes, line: bytes) -> Event | None:
        """Return the event of a line of a reply that is not a JSON value; None: it is none of its own."""
        if mark == b"$ " and line[2:].isdigit() and len(line) < 20:
            self._block = int(line[2:])
            return None
        if line == b"*" and not self._is_inside:
            self._is_inside = True
            return Kind.OPENING, None
        if line == b"." and self._is_inside:
            self._complete()
            return END, None
        if mark == b"- ":
            self._complete()
            return ERROR, error_of(self._json(line[2:]))
        if self._is_inside:
            return self._aside(line)
        raise ProtocolError(f"a reply cannot be understood: {shown(line)}")

    def _complete(self) -> None:
        self._heads.popleft()
        self._is_inside = False

    def _aside(self, line: bytes) -> Event | None:
        """Return the event of a line that is not part of a reply; None: it is a note."""
        if line.startswith(b"# "):
            return None
        if line.startswith(b"> "):
            return Kind.PUSH, self._json(line[2:])
        word, _, text = line.rstrip(b"\r").partition(b" ")
        if word in _WORDS:
            return Kind.REFUSAL, _WORDS[word](text.decode(errors="backslashreplace"))
        return self._refuse(line)

    def _refuse(self, line: bytes) -> NoReturn:
        if self._is_inside:
            raise ProtocolError(f"a reply cannot be understood: {shown(line)}")
        if line.startswith(b"@"):
            raise ProtocolError(f"a reply to another request came: {shown(line)}")
        raise not_spoken("framed replies", line)

    _json = staticmethod(json_value)


def error_of(facts: Any) -> Exception:
    """Return the error that a server has sent."""
    if not isinstance(facts, dict) or not isinstance(facts.get("text"), str):
        raise ProtocolError(f"an error has no text: {str(facts)[:80]!a}")
    text, why = facts["text"], facts.get("why")
    if why == "deadline":
        return CallTimeout(text, was_sent=True)
    kind = _WORDS.get(str(facts.get("error")).encode(), ReplyError)
    error: ReplyError
    if kind is ClientError and isinstance(why, str):
        usage = str(facts.get("usage") or "")
        error = UsageError(f"{text}." if usage else text, why)
        error.usage = usage
    else:
        error = kind(text)
    error.code = facts.get("code")
    error.data = facts.get("data")
    error.id = facts.get("id")
    return error


_WORDS: Mapping[bytes, type[ReplyError]] = {
    b"ERROR": UnknownCommand,
    b"CLIENT_ERROR": ClientError,
    b"SERVER_ERROR": ServerError,
}
