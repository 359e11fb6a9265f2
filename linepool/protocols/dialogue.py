r"""Dialogues of commands and coded replies, such as SMTP (RFC 5321) and POP3 (RFC 1939).

Rules:

- The server speaks first. Each command is a line; each reply is a line with a code, or several.
- A handler may say in which states of the connection it may be used (``when=``) and which state
  follows if it succeeds (``to=``). The state is ``session["state"]``.
- A handler with ``data: bytes = linepool.body()`` takes a block that ends with a line of one dot.
  Its command is checked first, then the client is prompted, then the block is read; a dot that
  begins a line stands doubled and is undoubled (RFC 5321, 4.5.2). Line endings in the block are CR
  LF. A block that is too large is read to its end, then refused.
- With ``strict_crlf``, only CR LF ends a line; a lone CR or LF anywhere is refused, after the whole
  of the line or block it stands in, for others would see a line's end there (RFC 5321, 2.3.8).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar, Self

from linepool.errors import (
    ReplyError,
    ServerError,
    SetupError,
    UnknownCommand,
    UsageError,
)
from linepool.protocols.base import Bad, Builtin, Call, Command, Request
from linepool.protocols.buffered import Buffered
from linepool.session import Reply, Session

_VERSION = 1
_KEPT = 4096  # bytes of a line in a block that may wait for its end
_CODES = {
    "usage": "501",
    "unknown": "500",
    "state": "503 Bad sequence of commands",
    "client": "554",
    "server": "451",
    "line": "500 Line too long",
    "large": "552 Message too large",
    "newline": "554 A line ends with CR LF, and nothing else does",
    "errors": "421 Too many errors",
}
_POP3 = {
    "usage": "-ERR",
    "unknown": "-ERR",
    "state": "-ERR not now",
    "client": "-ERR",
    "server": "-ERR",
    "line": "-ERR line too long",
    "large": "-ERR too large",
    "newline": "-ERR a line ends with CR LF",
    "errors": "-ERR too many errors",
}


class Dialogue(Buffered):
    """A protocol of commands and coded replies; ``Dialogue.smtp`` and ``Dialogue.pop3`` are made.

    A handler's None is ``ok``; a str is ``ok``'s code and that text; ``(250, "text")`` has a code of
    its own; a list, or ``(250, [...])``, is a reply of several lines. With ``dots``, several lines
    stand behind the first and end with a dot: ``("2 messages", [...])``; bytes are such lines.

    Args:
        greeting: The first line, such as ``220 ready``.
        ok: The reply to a handler that returns None.
        goodbye: The reply to QUIT.
        start: The state of a new connection.
        strict_crlf: Only CR LF ends a line.
        dots: Replies of several lines end with a dot, as in POP3.
        max_errors: How many wrong commands end the connection.
        words: What is said for ``usage``, ``unknown``, ``state``, ``client``, ``server``, ``line``,
            ``large``, ``newline`` and ``errors``: the code, or the whole line.
    """

    options: ClassVar[Mapping[str, str]] = {
        "when": "the states in which the command may be used: a word, or several in a tuple",
        "to": "the state that follows",
        "otherwise": "the reply in other states",
        "prompt": "what is said before the data block",
    }

    def __init__(  # noqa: PLR0913 - options
        self,
        *,
        greeting: str = "220 ready",
        ok: str = "250 OK",
        goodbye: str = "221 Bye",
        start: str = "start",
        strict_crlf: bool = False,
        dots: bool = False,
        max_errors: int = 20,
        words: Mapping[str, str] | None = None,
    ) -> None:
        self.hello = greeting
        self.ok = ok
        self.goodbye = goodbye
        self.first_state = start
        self.strict_crlf = strict_crlf
        self.dots = dots
        self.max_errors = max_errors
        self.words = {**(_POP3 if dots else _CODES), **(words or {})}

    @classmethod
    def smtp(cls, greeting: str = "220 ready", **options: Any) -> Self:
        """Return the dialogue of a mail server; only CR LF ends its lines."""
        return cls(greeting=greeting, strict_crlf=True, **options)

    @classmethod
    def pop3(cls, greeting: str = "+OK ready", **options: Any) -> Self:
        """Return the dialogue of a mailbox."""
        return cls(greeting=greeting, ok="+OK", goodbye="+OK bye", dots=True, **options)

    def builtins(self) -> Iterable[Builtin]:
        """NOOP and QUIT."""
        return (("NOOP",), _noop), (("QUIT",), _quit)

    def check(self, commands: Iterable[Command]) -> None:
        """Refuse states that nothing leads to, and data blocks with an announced size."""
        commands = list(commands)
        reached = {self.first_state} | {
            str(one.options["to"]) for one in commands if "to" in one.options
        }
        for command in commands:
            name = command.names[0]
            for state in _states(command):
                if state not in reached:
                    raise SetupError(f"command {name}: no command leads to the state {state!r}")
            if command.size_word is not None:
                raise SetupError(f"command {name}: a dialogue's block ends with a dot: body()")

    def greeting(self) -> bytes:
        """Return the first line."""
        return self.hello.encode() + b"\r\n"

    def start(self) -> None:
        """Set up the state of a new connection."""
        super().start()
        self._errors = 0
        self._block: list[bytes] | None = (
            None  # the command, and its words, that waits for its block
        )
        self._parts: list[bytes] = []  # of the block
        self._size = 0  # of these, and of what was thrown away
        self._inside = False  # the next bytes go on with a line
        self._lone = False  # the block has a CR or LF alone

    @property
    def at_boundary(self) -> bool:
        """Whether no byte of a further request has arrived."""
        return super().at_boundary and self._block is None

    def next_request(self) -> Request | Bad | None:
        """Return the next complete request, a Bad in its place, or None: more bytes are needed."""
        if self._block is not None:
            return self._data(self._block)
        while True:
            found = self._line()
            if found is None:
                if len(self._buffer) - self._at > self.limits.max_line_bytes + 1:
                    self._forget()
                    return Bad(self._said("line"), close=True)
                return None
            if len(found) > self.limits.max_line_bytes:
                return self._wrong("line")
            if self.strict_crlf and (b"\n" in found or b"\r" in found):
                return self._wrong("newline")
            words = found.split()
            if words:
                return self._request(found, words)
            if self.strict_crlf:
                return self._wrong("unknown")

    def eof(self) -> Bad | None:
        """Return None: nothing is said to a client that leaves inside a request."""
        return None

    def dump(self) -> bytes:
        """Return all state: what has arrived, and a block that is not complete."""
        state: dict[str, object] = {
            "errors": self._errors,
            "block": self._block and [word.decode("latin-1") for word in self._block],
            "body": b"".join(self._parts).decode("latin-1"),
            "size": self._size,
            "inside": self._inside,
            "lone": self._lone,
        }
        head = json.dumps({name: value for name, value in state.items() if value})
        return b"%c%b\n%b" % (_VERSION, head.encode(), self._unread())

    def load(self, blob: bytes) -> None:
        """Take over the state of a ``dump``."""
        if not blob or blob[0] != _VERSION:
            raise ValueError("not a dump of this version of a dialogue")
        self.start()
        head, _, self._buffer = blob[1:].partition(b"\n")
        state = json.loads(head)
        self._errors = state.get("errors", 0)
        if "block" in state:
            self._block = [word.encode("latin-1") for word in state["block"]]
        self._parts = [state.get("body", "").encode("latin-1")]
        self._size = state.get("size", 0)
        self._inside = state.get("inside", False)
        self._lone = state.get("lone", False)

    def around(self, request: Request, session: Session, call: Call) -> Any:
        """Answer a command, if the state is right for it; go to the state that follows."""
        command = request.command
        if command is not None and request.body is None:
            refusal = self._not_now(command, session)
            if refusal is None and command.body is not None:
                refusal = _wrong_count(request)
                if refusal is None:
                    self._block = [request.verb, *request.words]
                    return Reply(raw=_one_line(command.options.get("prompt", "354 Go ahead")))
            if refusal is not None:
                return self._counted(refusal)
        value = call(request)
        if isinstance(value, ReplyError):
            return self._counted(value)
        if command is not None and "to" in command.options:
            session["state"] = command.options["to"]
        return value

    # -- replies

    def encode(self, value: object, request: Request) -> bytes:
        """Return the reply, one line or several."""
        if value is None:
            return _one_line(self.ok)
        code: object = self.ok.partition(" ")[0]
        if isinstance(value, tuple) and len(value) == 2:
            first, value = value
            if self.dots:
                return _one_line(f"{code} {first}") + _dotted(value)
            code = first
        if self.dots:
            return (
                _one_line(f"{code} {value}")
                if isinstance(value, str)
                else (_one_line(self.ok) + _dotted(value))
            )
        lines = [str(line) for line in value] if isinstance(value, (list, tuple)) else [str(value)]
        *rows, last = lines or [""]
        return b"".join(_one_line(f"{code}-{row}") for row in rows) + _one_line(f"{code} {last}")

    def encode_stream(self, items: Iterator[object], request: Request) -> Iterator[bytes]:
        """Yield the lines of a stream; with ``dots`` as they come."""
        if not self.dots:
            yield self.encode(list(items), request)
            return
        yield _one_line(self.ok)
        for item in items:
            yield _stuffed(_bytes(item))
        yield b".\r\n"

    def encode_error(self, error: ReplyError, request: Request | None) -> bytes:
        """Return the error reply."""
        text = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in str(error))
        if isinstance(error, UnknownCommand):
            kind, text = "unknown", "Command not recognized"
        elif isinstance(error, UsageError):
            kind = "usage"
        else:
            kind = "server" if isinstance(error, ServerError) else "client"
        code = self.words[kind]
        if error.code is not None:
            code = f"{code} [{error.code}]" if self.dots else str(error.code)
        return f"{code} {text}".encode("utf-8", "replace") + b"\r\n"

    def _said(self, kind: str) -> bytes:
        text = self.words[kind]
        return _one_line(text if " " in text else f"{text} Command not recognized")

    def _wrong(self, kind: str) -> Bad:
        """Refuse a line, and count it."""
        self._errors += 1
        if self._errors > self.max_errors:
            return Bad(self._said("errors"), close=True)
        return Bad(self._said(kind), close=False)

    def _counted(self, refusal: Reply | ReplyError) -> Reply | ReplyError:
        """Return the reply to a wrong command; the last one ends the connection."""
        self._errors += 1
        if self._errors > self.max_errors:
            return Reply(raw=self._said("errors"), close=True)
        return refusal

    def _not_now(self, command: Command, session: Session) -> Reply | ReplyError | None:
        states = _states(command)
        if not states or session.get("state", self.first_state) in states:
            return None
        return Reply(raw=_one_line(command.options.get("otherwise", self.words["state"])))

    # -- requests

    def _line(self) -> bytes | None:
        """Return the next line without its ending, or None: it is not here."""
        ending = b"\r\n" if self.strict_crlf else b"\n"
        end = self._buffer.find(ending, self._at)
        if end < 0:
            return None
        line = self._buffer[self._at : end]
        self._at = end + len(ending)
        return line if self.strict_crlf else line.removesuffix(b"\r")

    def _request(self, line: bytes, words: list[bytes]) -> Request:
        verb = words.pop(0)
        command = self.commands.get(verb.upper(), self.unknown)
        if command is not None and command.rest_after is not None:
            words = line.split(None, command.rest_after + 1)[1:]
        return Request(verb, words, command, None, b"\r\n", line)

    def _data(self, block: list[bytes]) -> Request | Bad | None:
        """Read the lines of a block."""
        while (line := self._line()) is not None:
            if line == b"." and not self._inside:
                return self._complete(block)
            self._take(line + b"\r\n", line)
            self._inside = False
        # A long line is taken in parts, but for what may be the beginning of its ending.
        if len(self._buffer) - self._at > _KEPT:
            part = self._buffer[self._at : -1]
            self._at = len(self._buffer) - 1
            self._take(part, part)
            self._inside = True
        return None

    def _take(self, data: bytes, line: bytes) -> None:
        """Keep a line of a block, or a part of one; throw it away if the block is too large."""
        if self.strict_crlf and (b"\n" in line or b"\r" in line):
            self._lone = True
        if not self._inside and data.startswith(b"."):
            data = data[1:]
        self._size += len(data)
        if self._size <= self.limits.max_body_bytes:
            self._parts.append(data)
        else:
            self._parts.clear()

    def _complete(self, block: list[bytes]) -> Request | Bad:
        """Return the request of a command whose block has come to its end."""
        data, size, lone = b"".join(self._parts), self._size, self._lone
        self._block = None
        self._parts = []
        self._size = 0
        self._lone = False
        if size > self.limits.max_body_bytes:
            return self._wrong("large")
        if lone:
            return self._wrong("newline")
        command = self.commands.get(block[0].upper(), self.unknown)
        return Request(block[0], block[1:], command, data, b"\r\n", b" ".join(block))


def _noop(*_ignored: str) -> None:
    """Do nothing."""


def _quit(protocol: Dialogue) -> Reply:
    """Close the connection."""
    return Reply(raw=_one_line(protocol.goodbye), close=True)


def _states(command: Command) -> tuple[str, ...]:
    states = command.options.get("when", ())
    return (states,) if isinstance(states, str) else tuple(states)


def _wrong_count(request: Request) -> UsageError | None:
    """Return the error of a command whose words are too few or too many for its handler."""
    parameters = [one for one in request.command.parameters if one.kind != "body"]
    least = sum(one.required for one in parameters)
    endless = any(one.kind in ("many", "option", "flag") for one in parameters)
    if len(request.words) < least:
        return UsageError(f"{parameters[len(request.words)].name} is missing.", "missing")
    if len(request.words) > len(parameters) and not endless:
        return UsageError("there are too many words.", "surplus")
    return None


def _one_line(text: str) -> bytes:
    """Return a line of a reply.

    Raises:
        ValueError: It would be more than one.
    """
    if "\n" in text or "\r" in text or "\0" in text:
        raise ValueError("a line of a reply holds a line break")
    return text.encode() + b"\r\n"


def _bytes(value: object) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, (str, int, float)):
        return str(value).encode()
    raise TypeError(f"no line is defined for {type(value).__name__}")


def _dotted(value: object) -> bytes:
    """Return the lines behind a first one, and the dot that ends them."""
    if isinstance(value, bytes):
        return _stuffed(value) + b".\r\n"
    if not isinstance(value, Iterable):
        raise TypeError(f"no reply is defined for {type(value).__name__}")
    return b"".join(_stuffed(_bytes(line)) for line in value) + b".\r\n"


def _stuffed(data: bytes) -> bytes:
    """Return lines with CR LF, and a dot before each dot that begins one."""
    lines = data.replace(b"\r\n", b"\n").removesuffix(b"\n").split(b"\n")
    return b"".join((b"." if line.startswith(b".") else b"") + line + b"\r\n" for line in lines)
