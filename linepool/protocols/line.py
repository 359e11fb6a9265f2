r"""The line protocol: one request per line, words split on blanks, replies that a person can read.

Rules, where a line could be read in two ways:

- A line ends with LF; one CR before it belongs to the ending. A reply uses the ending that its
  request used, so telnet (CRLF) and netcat (LF) both see what they expect.
- A line of blanks is ignored. A line without its ending is never a request, not even at the end.
- A NUL, and a CR that is not before LF, are refused with CLIENT_ERROR: another program would see
  another line there.
- Telnet's commands (IAC sequences, RFC 854) are removed from lines; IAC IAC is a byte 255. Every
  option that telnet asks for is refused ahead of the next reply, except the timing mark.
- A word that begins with " or ' runs to the closing quote. In double quotes the escapes of a Redis
  inline command apply (\n \r \t \a \b \xHH \\ \"); in single quotes only \'. A quote inside a
  bare word is an ordinary character, and so is everything in the rest of a line.
- A data block is exactly as long as announced and ends with LF or CRLF, not counted.
- A line "END" inside a reply of several lines is sent in double quotes, because END ends the reply.
- A line that begins with @ is a framed request, see ``framing``; a blank before the @ makes it none.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any, ClassVar

from linepool.errors import ClientError, ReplyError, SetupError
from linepool.protocols import framing, telnet
from linepool.protocols.base import SKIPPED, Bad, Builtin, Command, Request, printable
from linepool.protocols.buffered import Buffered
from linepool.protocols.builtin import AUTH, HELP, QUIT, SCHEMA
from linepool.protocols.document import Document
from linepool.protocols.framing import Framed
from linepool.protocols.line_text import fields, row, split
from linepool.protocols.shapes import Shape, shape_in_lines
from linepool.protocols.text import check_version, one_line, scalar_text
from linepool.values.json_text import dumps

# ``_LF in data`` takes a fifth of the time of ``b"\n" in data``, which raises and catches an
# exception internally.
_NUL, _LF, _CR, _DOUBLE, _SINGLE = b"\0\n\r\"'"
_IAC_BYTE = telnet.IAC_BYTE
_IAC = bytes([_IAC_BYTE])
_BLANK_LINES_AT_ONCE = 100  # that one call of next_request skips
_DUMP = struct.Struct("<B2sI")
_VERSION = 0x12


_LINES, _JSON = RECORDS = "lines", "json"
_NEEDS_RECORDS = f"records must be {_LINES!r} or {_JSON!r}, not "


class Line(Buffered):
    """The line protocol, which is the default: a request per line, as docs/line-protocol.md says.

    Args:
        framed: A request may begin with ``@``; its reply says where it ends (docs/line-protocol.md).
        records: How a dict, an attrs instance or a dataclass is sent: ``lines``, one of ``name value``
            for each entry or field, then ``END``; or ``json``, one line of JSON. The option of the same
            name of ``handler()`` decides for one command. Inside a line of a reply they are JSON always.

    Raises:
        SetupError: ``records`` is neither.
    """

    takes_json: ClassVar[bool] = True
    can_wait: ClassVar[bool] = True
    line_end = b"\n"
    public_builtins: ClassVar[frozenset[str]] = frozenset({"AUTH", "QUIT"})
    options: ClassVar[Mapping[str, str]] = {
        "records": "how a dict, an attrs instance or a dataclass is sent: lines or json",
    }
    supplies: ClassVar[Mapping[Any, Callable[[Request, Any], object]]] = {
        Document: lambda _request, conversation: conversation.service.document,
    }

    _head: bytes | None = None  # of the framed request whose data block has not all arrived
    _plain: list[bytes]  # lines already cut that come before the buffer, in reverse order
    _measured: list[bytes] | None = None  # the lines of which ``_sums`` knows ...
    _sums: Sequence[int] = ()  # ... how long they are, with those before them in the list

    def __init__(self, *, framed: bool = True, records: str = _LINES) -> None:
        if records not in RECORDS:
            raise SetupError(f"{_NEEDS_RECORDS}{records!r}")
        self.framed, self.records = framed, records

    def builtins(self) -> Iterable[Builtin]:
        """HELP, QUIT and SCHEMA."""
        return HELP, QUIT, SCHEMA

    def login_builtins(self) -> Iterable[Builtin]:
        """AUTH."""
        return (AUTH,)

    def locked_error(self, request: Request | None) -> ReplyError:
        """Return the error that says how to log in."""
        return ClientError("authentication required: AUTH USER PASSWORD")

    def check(self, commands: Iterable[Command]) -> None:
        """As for every protocol; also the options and the names of commands."""
        commands = list(commands)
        super().check(commands)
        for command in commands:
            records = command.options.get("records", _LINES)
            if records not in RECORDS:
                raise SetupError(f"command {command.names[0]}: {_NEEDS_RECORDS}{records!r}")
            for name in command.names:
                if self.framed and name.startswith("@"):
                    raise SetupError(
                        f"command {name}: a line that begins with @ is a framed request; choose"
                        " another name, or turn these off with Line(framed=False)"
                    )

    def shape(self, command: Command) -> Shape:
        """Return how the replies of a command are laid out: in one line, or in lines to END."""
        records = command.options.get("records", self.records)
        return shape_in_lines(command.returns, as_json=records == _JSON)

    def start(self) -> None:
        """Set up the state of a new connection."""
        super().start()
        self._eol = b"\r\n"
        self._telnet = b""  # answers to telnet's commands, to be sent ahead of the next reply

    def feed(self, data: bytes) -> None:
        """Take bytes from the client, cut anywhere.

        Data without quotes, NUL or telnet commands is split into lines here, all at once: such a
        request takes a third of the time that it takes under the full rules.
        """
        if self._needed:
            self._collect(data)
            return
        if self._plain:
            self._unsplit()
        if self._at < len(self._buffer):
            data = self._buffer[self._at :] + data
        self._at = 0
        self._buffer = data
        if _DOUBLE in data or _SINGLE in data or _NUL in data or _IAC_BYTE in data:
            return
        lines = data.split(b"\n")
        self._buffer = lines.pop()
        lines.reverse()
        self._plain = lines

    def next_request(self) -> Request | Bad | None:
        """Return the next complete request, a Bad in its place, or None: more bytes are needed."""
        if self._plain:
            line = full = self._plain.pop()
            eol = b"\n"
            if line and line[-1] == _CR:
                line, eol = line[:-1], b"\r\n"
            words = line.split()
            if words and _CR not in line and len(line) <= self.limits.max_line_bytes:
                verb = words.pop(0)
                command = self.commands.get(verb) or self.commands.get(verb.upper())
                if command is not None and command.rest_after is None and command.size_word is None:
                    self._eol = eol
                    return Request(verb, words, command, None, eol, line)
            self._plain.append(full)
            self._unsplit()
        elif self._at >= len(self._buffer):
            return None
        return self._next_by_full_rules()

    def _unsplit(self) -> None:
        """Put the lines already cut back into the buffer, to be read under the full rules."""
        self._buffer = self._unread()
        self._at = 0
        self._plain = []

    def _unread(self) -> bytes:
        unread = super()._unread()
        return b"\n".join([*reversed(self._plain), unread]) if self._plain else unread

    def take_unread(self) -> bytes | None:
        """As ``Buffered``; answers to telnet's commands are with the next reply, which is made here then."""
        return None if self._telnet else super().take_unread()

    def _forget(self) -> None:
        super()._forget()
        self._plain = []

    @property
    def at_boundary(self) -> bool:
        """Whether no byte of a further request has arrived."""
        return not self._plain and self._at >= len(self._buffer)

    @property
    def unread_bytes(self) -> int:
        """How many bytes have arrived and belong to no request yet."""
        unread = super().unread_bytes
        if not self._plain:
            return unread
        if self._measured is not self._plain:
            self._measured = self._plain
            self._sums = list(accumulate(len(line) + 1 for line in self._plain))
        return unread + self._sums[len(self._plain) - 1]

    def _next_by_full_rules(self) -> Request | Bad | None:
        if self._needed and not self._join_block():
            return None
        for _ in range(_BLANK_LINES_AT_ONCE):
            begin = self._at
            end = self._buffer.find(b"\n", begin)
            if end < 0:
                # One more byte may be the CR of the ending.
                if len(self._buffer) - begin > self.limits.max_line_bytes + 1:
                    return self._too_long()
                self._await_line(self.limits.max_line_bytes + 2)
                return None
            eol = b"\n"
            stop = end
            if end > begin and self._buffer[end - 1] == 0x0D:
                eol = b"\r\n"
                stop = end - 1
            line = self._buffer[begin:stop]
            if len(line) > self.limits.max_line_bytes:
                return self._too_long()
            answers = self._telnet
            if _IAC_BYTE in line:
                line, self._telnet = telnet.strip(line, answers)
            self._at = end + 1
            words = line.split()
            if words:
                self._eol = eol
                request = self._request(line, words, begin)
                if request is None:  # the line is read again when its data block has arrived
                    self._telnet = answers
                return request
        return SKIPPED

    def take_back(self, request: Request) -> None:
        """Put a request in front of what has arrived."""
        line = request.line.replace(_IAC, _IAC + _IAC) + request.eol
        body = b"" if request.body is None else request.body + request.eol
        self.put_back(line + body)

    def eof(self) -> Bad | None:
        """Return the error for a client that ended its stream inside a request."""
        if self.at_boundary:
            return None
        if not self._needed and (bad := self.next_request()) is not None:
            # Only right after load(): the bytes carried over have not been parsed yet.
            return bad if isinstance(bad, Bad) else None
        if self._needed:
            return self._lost("the data block is incomplete; the request was not run")
        return self._lost("the last line has no line ending; it was not run")

    @property
    def is_replaceable(self) -> bool:
        """Whether this is in its initial state, so that a new object could replace it."""
        return not self._plain and self._at >= len(self._buffer) and not self._telnet

    def dump(self) -> bytes:
        """Return all state: the bytes not yet read, and what is known of the client."""
        head = _DUMP.pack(_VERSION, self._eol, len(self._telnet))
        return head + self._telnet + self._unread()

    def load(self, blob: bytes) -> None:
        """Take over the state of a ``dump``."""
        check_version(blob, _VERSION, _DUMP.size, "the line protocol")
        self.start()
        _, eol, answers_size = _DUMP.unpack_from(blob)
        self._eol = eol.rstrip(b"\0")
        self._telnet = blob[_DUMP.size : _DUMP.size + answers_size]
        self._buffer = blob[_DUMP.size + answers_size :]

    def encode(self, value: object, request: Request) -> bytes:
        """Return the reply: one line, or several and END."""
        if type(request) is Framed:
            return self._ahead(framing.reply(value, request))
        eol = request.eol
        if type(value) is int:  # the most frequent type without any call
            reply = b"%d%b" % (value, eol)
            return self._ahead(reply) if self._telnet else reply
        if type(value) is str:
            text: bytes | None = value.encode()
        else:
            text = b"OK" if value is None else scalar_text(value)
        if text is not None:
            if _LF in text or _CR in text:
                raise ValueError("a one-line reply holds a line break; return a list of lines")
            return self._ahead(text + eol)
        if (named := fields(value)) is not None:
            options = request.command.options if request.command is not None else {}
            if options.get("records", self.records) == _JSON:
                return self._ahead(dumps(value) + eol)
            value = named
        elif not isinstance(value, Iterable):
            return self._ahead(dumps(value) + eol)
        return self._ahead(b"".join(row(item) + eol for item in value) + b"END" + eol)

    def encode_raw(self, data: bytes, request: Request) -> bytes:
        """Return bytes as they are; raises TypeError for a framed request, whose reply they would not be."""
        if type(request) is Framed:
            raise TypeError("Reply(raw=...) cannot answer a framed request, which begins with @")
        return data

    def encode_push(self, value: object, request: Request) -> bytes:
        """Return a value as a reply, or as a push if the request is framed."""
        if type(request) is Framed:
            return self._ahead(framing.push(value, request.eol))
        return self.encode(value, request)

    def encode_stream(self, items: Iterator[object], request: Request) -> Iterator[bytes]:
        """Yield one line per item, then END."""
        if type(request) is Framed:
            yield from map(self._ahead, framing.stream(items, request))
            return
        for item in items:
            yield self._ahead(row(item) + request.eol)
        yield self._ahead(b"END" + request.eol)

    def encode_error(self, error: ReplyError, request: Request | None) -> bytes:
        """Return the error line, with memcached's prefix."""
        eol = request.eol if request else self._eol
        if self.framed:
            head = framing.head_of(request) if request else self._head
            if head is not None:
                return self._ahead(framing.error_reply(error, request, head, eol))
        word = framing.error_word(error).encode()
        return self._ahead(b"%b %b%b" % (word, one_line(str(error)), eol))

    def command_in(self, line: bytes) -> bytes:
        """Return the command's name; in a framed request it is the second word."""
        words = line.split(None, 2)
        if self.framed and line[:1] == framing.AT:
            del words[0]
        return words[0] if words else b""

    def _ahead(self, reply: bytes) -> bytes:
        """Put answers to telnet ahead of a reply."""
        if self._telnet:
            reply, self._telnet = self._telnet + reply, b""
        return reply

    def _request(self, line: bytes, words: list[bytes], begin: int) -> Request | Bad | None:
        """Return the request of a line that holds at least one word and begins at ``begin``."""
        head = None
        if self.framed and line[:1] == framing.AT:
            head = framing.read_head(words.pop(0))
            self._head = head.head
        made = self._made(line, words, head, begin)
        if made is not None:
            self._head = None
        return made

    def _made(
        self, line: bytes, words: list[bytes], head: framing.Head | None, begin: int
    ) -> Request | Bad | None:
        """Return the request of a line; ``words`` are without the one of its head, if it has one."""
        if not words:
            return self._refused(None, "no command follows the @")
        verb = words.pop(0)
        command = self.commands.get(verb) or self.commands.get(verb.upper(), self.unknown)
        if _NUL in line or _CR in line:
            return self._refused(command, "the line holds a NUL or a lone CR")
        if head is not None and head.problem:
            return self._refused(command, head.problem)
        text = line if head is None else line.split(None, 1)[1]
        text = text[text.index(verb) + len(verb) :]
        if head is not None:
            request: Request = Framed(
                verb, words, command, None, self._eol, line, None, *head.of_request()
            )
        else:
            request = Request(verb, words, command, None, self._eol, line)
        if command is None:
            return request
        try:
            if head is not None and head.has_values:
                request.words, request.values = [], framing.read_values(text)
            elif command.rest_after is not None or _DOUBLE in text or _SINGLE in text:
                request.words = split(text, command.rest_after)
        except ValueError as error:
            return self._refused(command, str(error))
        if (
            command.size_word is None
            or (size := framing.size_in(request, command.size_word)) is None
        ):
            return request
        return self._with_body(request, size, begin)

    def _with_body(self, request: Request, size_word: bytes, begin: int) -> Request | Bad | None:
        """Add the data block, or step back to the line and wait if it has not all arrived."""
        if not size_word.isdigit():
            return self._lost(f"'{printable(size_word)}' is not the size of a data block in bytes")
        size = int(size_word) if len(size_word) < 20 else self.limits.max_body_bytes + 1
        if size > self.limits.max_body_bytes:
            return self._lost(f"a data block may hold {self.limits.max_body_bytes} bytes at most")
        stop = self._at + size
        ending = self._buffer[stop : stop + 2]
        if ending in (b"", b"\r"):
            self._needed = stop + len(ending) + 1 - begin
            self._at = begin
            return None
        if ending != b"\r\n" and not ending.startswith(b"\n"):
            return self._lost(f"the data block does not end after {size} bytes with a line ending")
        request.body = self._buffer[self._at : stop]
        self._at = stop + (2 if ending == b"\r\n" else 1)
        return request

    def _refused(self, command: Command | None, text: str) -> Bad:
        """Refuse one line; if a data block would follow it, its end is unknown: close."""
        if command is not None and command.size_word is not None:
            return self._lost(f"{text}, so the size of the data block is not known")
        error: ReplyError = ClientError(text)
        if self.is_locked and not (command is not None and command.is_public):
            error = self.locked_error(None)
        return Bad(self.encode_error(error, None), close=False)

    def _too_long(self) -> Bad:
        return self._lost(f"a line may hold {self.limits.max_line_bytes} bytes at most")

    def _lost(self, text: str) -> Bad:
        """Close: where the next request begins is unknown."""
        self._forget()
        return Bad(self.encode_error(ClientError(text), None), close=True)
