r"""Dialogues of commands and coded replies, such as SMTP (RFC 5321) and POP3 (RFC 1939).

Rules:

- The server sends the first line. Each command is a line; each reply is one or more lines with a
  code.
- A handler may name the states of the connection in which its command is allowed (``when=``) and
  the state that follows if it succeeds (``to=``). The state is ``session["state"]``.
- A handler with ``data: bytes = linepool.body()`` takes a block that ends with a line of one dot.
  The protocol checks the command, prompts the client, then reads the block. A dot that begins a
  line is sent twice, and one of the two is removed (RFC 5321, 4.5.2). Line endings in the block are
  CR LF. A block that is too large is read to its end, then refused.
- With ``strict_crlf``, only CR LF ends a line; a lone CR or LF is refused at the end of its line or
  block, because other software would see the end of a line there (RFC 5321, 2.3.8).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar, Self

from linepool.errors import (
    ReplyError,
    ServerError,
    SetupError,
    UnknownCommand,
    UsageError,
)
from linepool.protocols.base import SKIPPED, Bad, Builtin, Call, Command, Request
from linepool.protocols.buffered import Buffered
from linepool.protocols.dialogue import replies
from linepool.protocols.text import dump_with_head, load_with_head, one_line
from linepool.session import Reply, Session

_VERSION = 0x21
_LINES_AT_ONCE = 1000  # of a block, in one call of next_request
_MAX_LINE_PART_BYTES = 4096  # of a line in a block, kept in the buffer until its end arrives


class Dialogue(Buffered):
    """A protocol of commands and coded replies; see ``Dialogue.smtp`` and ``Dialogue.pop3``.

    A handler's None is ``ok``; a str is ``ok``'s code and that text; ``(250, "text")`` has its own
    code; a list, or ``(250, [...])``, is a reply of several lines. With ``dots``, further lines
    follow the first and end with a dot: ``("2 messages", [...])``; bytes are such lines.

    Args:
        greeting: The first line, such as ``220 ready``.
        ok: The reply to a handler that returns None.
        goodbye: The reply to QUIT.
        start: The state of a new connection.
        strict_crlf: Only CR LF ends a line.
        dots: Replies of several lines end with a dot, as in POP3.
        max_errors: How many errors a client may make; the next one closes the connection.
        error_replies: Replies that replace the usual ones, by kind: ``usage``, ``unknown``,
            ``state``, ``client``, ``server``, ``line``, ``large``, ``newline`` and ``errors``. Each
            is a code, or the whole line.
    """

    line_end = b"\r\n"
    options: ClassVar[Mapping[str, str]] = {
        "when": "the states in which the command is allowed: a word, or several in a tuple",
        "to": "the state that follows",
        "otherwise": "the reply in other states",
        "prompt": "the line that asks for the data block",
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
        error_replies: Mapping[str, str] | None = None,
    ) -> None:
        self.hello = greeting
        self.ok = ok
        self.goodbye = goodbye
        self.first_state = start
        self.strict_crlf = strict_crlf
        self.dots = dots
        self.max_errors = max_errors
        usual = replies.POP3_ERRORS if dots else replies.CODED_ERRORS
        self.error_replies = {**usual, **(error_replies or {})}

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
        """Refuse states that no command leads to, and data blocks with an announced size."""
        commands = list(commands)
        leads_to = {str(one.options["to"]) for one in commands if "to" in one.options}
        reached = {self.first_state, *leads_to}
        for command in commands:
            name = command.names[0]
            for state in _states(command):
                if state not in reached:
                    raise SetupError(f"command {name}: no command leads to the state {state!r}")
            if command.size_word is not None:
                raise SetupError(
                    f"command {name}: a dialogue's data block ends with a dot;"
                    " use body() without a size"
                )

    def greeting(self) -> bytes:
        """Return the first line."""
        return self.hello.encode() + b"\r\n"

    def start(self) -> None:
        """Set up the state of a new connection."""
        super().start()
        self._errors = 0
        # The command, and its words, whose block is being read.
        self._block: list[bytes] | None = None
        self._parts: list[bytes] = []  # of the block
        self._size = 0  # of the block in bytes, dropped ones included
        self._inside = False  # the next bytes continue a line
        self._lone = False  # the block has a lone CR or LF

    @property
    def at_boundary(self) -> bool:
        """Whether no byte of a further request has arrived."""
        return super().at_boundary and self._block is None

    def next_request(self) -> Request | Bad | None:
        """Return the next complete request, a Bad in its place, or None: more bytes are needed."""
        if self._block is not None:
            return self._data(self._block)
        found = self._line()
        length = len(self._buffer) - self._at - 1 if found is None else len(found)
        if length > self.limits.max_line_bytes:
            self._forget()  # even if the end of the line has arrived: a cut must not matter
            return Bad(self._error_reply("line"), close=True)
        if found is None:
            self._await_line(self.limits.max_line_bytes + 2)
            return None
        if self.strict_crlf and (b"\n" in found or b"\r" in found):
            return self._refused_line("newline")
        words = found.split()
        if words:
            return self._request(found, words)
        return self._refused_line("unknown") if self.strict_crlf else SKIPPED

    def eof(self) -> Bad | None:
        """Return None: a client that leaves inside a request gets no error."""
        return None

    def dump(self) -> bytes:
        """Return all state: the bytes that have arrived, and an incomplete block."""
        body = b"".join(self._parts)
        state: dict[str, object] = {
            "errors": self._errors,
            "block": self._block and [word.decode("latin-1") for word in self._block],
            "body": len(body),
            "size": self._size,
            "inside": self._inside,
            "lone": self._lone,
        }
        return dump_with_head(_VERSION, state, body, self._unread())

    def load(self, blob: bytes) -> None:
        """Take over the state of a ``dump``."""
        state, rest = load_with_head(blob, _VERSION, "a dialogue")
        self.start()
        body_size = state.get("body", 0)
        self._parts = [rest[:body_size]]
        self._buffer = rest[body_size:]
        self._errors = state.get("errors", 0)
        if "block" in state:
            self._block = [word.encode("latin-1") for word in state["block"]]
        self._size = state.get("size", 0)
        self._inside = state.get("inside", False)
        self._lone = state.get("lone", False)

    def around(self, request: Request, session: Session, call: Call) -> Any:
        """Answer a command if the state allows it, and enter the state that follows."""
        command = request.command
        if command is not None and request.body is None:
            refusal = self._state_refusal(command, session)
            if refusal is None and command.body is not None:
                refusal = _count_error(request)
                if refusal is None:
                    self._block = [request.verb, *request.words]
                    return Reply(raw=replies.line(command.options.get("prompt", "354 Go ahead")))
            if refusal is not None:
                return self._counted(refusal)
        value = call(request)
        if isinstance(value, ReplyError):
            return self._counted(value)
        if command is not None and "to" in command.options:
            session["state"] = command.options["to"]
        return value

    def encode(self, value: object, request: Request) -> bytes:
        """Return the reply, one line or several."""
        if value is None:
            return replies.line(self.ok)
        code: object = self.ok.partition(" ")[0]
        if isinstance(value, tuple) and len(value) == 2:
            first, value = value
            if self.dots:
                return replies.line(f"{code} {replies.text(first)}") + replies.dotted(value)
            code = first
        if not self.dots:
            rows = value if isinstance(value, (list, tuple)) else [value]
            return replies.coded(code, [] if value is None else rows)
        if isinstance(value, str):
            return replies.line(f"{code} {value}")
        return replies.line(self.ok) + replies.dotted(value)

    def encode_stream(self, items: Iterator[object], request: Request) -> Iterator[bytes]:
        """Yield the reply of a generator handler; with ``dots``, each line as the handler yields it."""
        if not self.dots:
            yield self.encode(list(items), request)
            return
        yield replies.line(self.ok)
        for item in items:
            yield replies.stuffed(item)
        yield b".\r\n"

    def encode_error(self, error: ReplyError, request: Request | None) -> bytes:
        """Return the error reply."""
        text = str(error)
        if isinstance(error, UnknownCommand):
            kind, text = "unknown", "Command not recognized"
        elif isinstance(error, UsageError):
            kind = "usage"
        else:
            kind = "server" if isinstance(error, ServerError) else "client"
        code = self.error_replies[kind]
        if error.code is not None:
            code = f"{code} [{error.code}]" if self.dots else str(error.code)
        return f"{code} ".encode("utf-8", "replace") + one_line(text) + b"\r\n"

    def _error_reply(self, kind: str) -> bytes:
        text = self.error_replies[kind]
        return replies.line(text if " " in text else f"{text} Command not recognized")

    def _refused_line(self, kind: str) -> Bad:
        """Refuse a line or a block, and count the error."""
        self._errors += 1
        if self._errors > self.max_errors:
            return Bad(self._error_reply("errors"), close=True)
        return Bad(self._error_reply(kind), close=False)

    def _counted(self, refusal: Reply | ReplyError) -> Reply | ReplyError:
        """Count the error of a command; return its reply, or the one that closes the connection."""
        self._errors += 1
        if self._errors > self.max_errors:
            return Reply(raw=self._error_reply("errors"), close=True)
        return refusal

    def _state_refusal(self, command: Command, session: Session) -> Reply | ReplyError | None:
        """Return the reply to a command that the state does not allow, or None."""
        states = _states(command)
        if not states or session.get("state", self.first_state) in states:
            return None
        text = command.options.get("otherwise", self.error_replies["state"])
        return Reply(raw=replies.line(text))

    def _line(self) -> bytes | None:
        """Return the next line without its ending, or None: it has not arrived."""
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
        """Read the lines of a block, some of them at a time."""
        for _ in range(_LINES_AT_ONCE):
            if (line := self._line()) is None:
                break
            if line == b"." and not self._inside:
                return self._complete(block)
            self._add(line + b"\r\n", line)
            self._inside = False
        else:
            return SKIPPED
        # A long line is added in parts, without its last byte: that may begin its ending.
        if len(self._buffer) - self._at > _MAX_LINE_PART_BYTES:
            part = self._buffer[self._at : -1]
            self._at = len(self._buffer) - 1
            self._add(part, part)
            self._inside = True
        return None

    def _add(self, data: bytes, line: bytes) -> None:
        """Add a line, or a part of one, to the block; drop all of it if it is too large."""
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
            return self._refused_line("large")
        if lone:
            return self._refused_line("newline")
        command = self.commands.get(block[0].upper(), self.unknown)
        return Request(block[0], block[1:], command, data, b"\r\n", b" ".join(block))


def _noop(*_ignored: str) -> None:
    """Do nothing."""


def _quit(protocol: Dialogue) -> Reply:
    """Close the connection."""
    return Reply(raw=replies.line(protocol.goodbye), close=True)


def _states(command: Command) -> tuple[str, ...]:
    states = command.options.get("when", ())
    return (states,) if isinstance(states, str) else tuple(states)


def _count_error(request: Request) -> UsageError | None:
    """Return the error of a command with too few or too many words for its handler."""
    parameters = [one for one in request.command.parameters if one.kind != "body"]
    least = sum(one.required for one in parameters)
    is_unlimited = any(one.kind in ("many", "option", "flag") for one in parameters)
    if len(request.words) < least:
        return UsageError(f"{parameters[len(request.words)].name} is missing.", "missing")
    if len(request.words) > len(parameters) and not is_unlimited:
        given = len(request.words)
        return UsageError(
            f"too many arguments: {given} given, at most {len(parameters)}.", "surplus"
        )
    return None
