r"""The line protocol: one request a line, words split on blanks, replies that a person can read.

Rules, where a line could be read in two ways:

- A line ends with LF; one CR before it belongs to the ending. A reply uses the ending that its
  request used, so telnet (CRLF) and netcat (LF) both see what they expect.
- A line of blanks is ignored. A line without its ending is never a request, not even at the end.
- A NUL, and a CR that is not before LF, are refused with CLIENT_ERROR: another program would see
  another line there.
- Telnet's commands (IAC sequences, RFC 854) are taken out of lines; IAC IAC is a byte 255. What
  they ask for is refused with the next reply, but for the timing mark (RFC 860): after ^C, telnet
  shows nothing until that is answered.
- A word that begins with " or ' runs to the closing quote. In double quotes the escapes of a Redis
  inline command hold (\n \r \t \a \b \xHH \\ \"); in single quotes only \'. A quote inside a
  bare word is an ordinary character, and so is everything in the rest of a line.
- A data block is exactly as long as announced and ends with LF or CRLF, not counted.
- A first line that is HTTP, a ``Host:`` line that is no command, and a TLS hello come from a
  stranger who was led here by mistake or by malice: the connection ends, and nothing behind that
  line is executed.
- A line "END" inside a reply of several lines is sent in double quotes, for END ends the reply.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date, time
from enum import Enum
from typing import Any

import attrs

from linepool.errors import ClientError, ReplyError, ServerError, UnknownCommand
from linepool.protocols.base import Bad, Builtin, Command, Request, printable
from linepool.protocols.buffered import Buffered
from linepool.protocols.builtin import HELP, QUIT

# To look for a byte as a number takes a fifth of the time that it takes as bytes: the latter raises and
# catches an exception on the way.
_NUL, _LF, _CR, _DOUBLE, _SINGLE, _IAC_BYTE = b"\0\n\r\"'\xff"
_IAC = b"\xff"
# RFC 854: IAC SB .. IAC SE; IAC WILL/WONT/DO/DONT option; IAC IAC; IAC command. A line may cut one.
_TELNET = re.compile(rb"\xff(?:\xfa.*?(?:\xff\xf0|\Z)|[\xfb-\xfe](?:.|\Z)|.|\Z)", re.DOTALL)
_HTTP = re.compile(rb"\S+ \S+ HTTP/[0-9.]+ *\Z")
_TLS_HELLO = b"\x16\x03"
_WORD = re.compile(
    rb"""[ \t\v\f]*(?:"((?:[^"\\]|\\.)*)"|'((?:[^'\\]|\\.)*)'|([^"' \t\v\f][^ \t\v\f]*))(?=[ \t\v\f]|\Z)"""
)
_BLANKS = b" \t\v\f"
_ESCAPE = re.compile(rb"\\(?:x([0-9a-fA-F]{2})|(.))")
_ESCAPED = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"a": b"\a", b"b": b"\b"}
_WILL, _WONT, _DO, _DONT = b"\xfb", b"\xfc", b"\xfd", b"\xfe"
_TIMING_MARK = b"\x06"
_MOST_ANSWERS = 255  # bytes
_DUMP = struct.Struct("<B?2sI")
_VERSION = 1


class Line(Buffered):
    """The default protocol; the head of the module has its rules."""

    _plain: list[bytes]  # lines that come before the buffer, the first one last

    def builtins(self) -> Iterable[Builtin]:
        """HELP and QUIT."""
        return HELP, QUIT

    def start(self) -> None:
        """Set up the state of a new connection."""
        super().start()
        self._first = True  # no line has been read yet
        self._eol = b"\r\n"
        self._telnet = b""  # answers to telnet's commands, sent ahead of the next reply

    def feed(self, data: bytes) -> None:
        """Take what the client sent; any cut is possible.

        Lines in which nothing is to be heeded but their words are cut here, all at once: a request
        takes a third of the time that the whole of the rules takes.
        """
        if self._needed:
            self._arriving += data
            return
        if self._plain:
            self._go_by_the_rules()
        if self._at < len(self._buffer):
            data = self._buffer[self._at :] + data
        self._at = 0
        self._buffer = data
        if (
            _DOUBLE in data
            or _SINGLE in data
            or _NUL in data
            or _IAC_BYTE in data
            or (self._first and (data.startswith(_TLS_HELLO) or b"HTTP/" in data))
        ):
            return
        lines = data.split(b"\n")
        self._buffer = lines.pop()
        lines.reverse()
        self._plain = lines

    def next_request(self) -> Request | Bad | None:
        """Return the next complete request, what is wrong in its place, or None: feed me more."""
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
                    self._first = False
                    self._eol = eol
                    return Request(verb, words, command, None, eol, line)
            self._plain.append(full)
            self._go_by_the_rules()
        elif self._at >= len(self._buffer):
            return None
        return self._next_by_all_rules()

    def _go_by_the_rules(self) -> None:
        """Put the plain lines that are left back into the buffer."""
        self._buffer = self._rest()
        self._at = 0
        self._plain = []

    def _rest(self) -> bytes:
        rest = super()._rest()
        return b"\n".join([*reversed(self._plain), rest]) if self._plain else rest

    def _forget(self) -> None:
        super()._forget()
        self._plain = []

    @property
    def at_boundary(self) -> bool:
        """Whether nothing of a further request has arrived."""
        return not self._plain and self._at >= len(self._buffer)

    def _next_by_all_rules(self) -> Request | Bad | None:
        if self._needed and not self._has_arrived():
            return None
        while True:
            begin = self._at
            end = self._buffer.find(b"\n", begin)
            if end < 0:
                return self._unfinished(begin)
            eol = b"\n"
            stop = end
            if end > begin and self._buffer[end - 1] == 0x0D:
                eol = b"\r\n"
                stop = end - 1
            line = self._buffer[begin:stop]
            if bad := self._unacceptable(line, eol):
                return bad
            answers = self._telnet
            if _IAC_BYTE in line:
                line = _TELNET.sub(self._on_telnet, line)
            self._at = end + 1
            words = line.split()
            if words:
                self._first = False
                self._eol = eol
                request = self._request(line, words, begin)
                if request is None:  # the line is read again when its data block is here
                    self._telnet = answers
                return request

    def eof(self) -> Bad | None:
        """Return what to say to a client that ended its stream inside a request."""
        if self.at_boundary:
            return None
        if not self._needed and (bad := self.next_request()) is not None:
            # Only after a load: until then nobody had looked at what the other process left.
            return bad if isinstance(bad, Bad) else None
        if self._needed:
            return self._lost("the data block is incomplete; the request was not run")
        return self._lost("the last line has no line ending; it was not run")

    @property
    def is_replaceable(self) -> bool:
        """Whether a new object could take its place now."""
        return not self._plain and self._at >= len(self._buffer) and not self._telnet

    def dump(self) -> bytes:
        """Return all state: the bytes not yet read, and what was learnt of the client."""
        head = _DUMP.pack(_VERSION, self._first, self._eol, len(self._telnet))
        return head + self._telnet + self._rest()

    def load(self, blob: bytes) -> None:
        """Take over the state that ``dump`` gave."""
        if len(blob) < _DUMP.size or blob[0] != _VERSION:
            raise ValueError("not a dump of this version of the line protocol")
        self.start()
        _, self._first, eol, telnet = _DUMP.unpack_from(blob)
        self._eol = eol.rstrip(b"\0")
        self._telnet = blob[_DUMP.size : _DUMP.size + telnet]
        self._buffer = blob[_DUMP.size + telnet :]

    def encode(self, value: object, request: Request) -> bytes:
        """Return the reply: one line, or several and END."""
        eol = request.eol
        if type(value) is int:  # the most frequent ones without any call
            reply = b"%d%b" % (value, eol)
            return self._ahead(reply) if self._telnet else reply
        text = value.encode() if type(value) is str else _scalar(value)
        if text is not None:
            if _LF in text or _CR in text:
                raise ValueError("a one-line reply holds a line break; return a list of lines")
            return self._ahead(text + eol)
        return self._ahead(b"".join(_line(item) + eol for item in _lines(value)) + b"END" + eol)

    def encode_stream(self, items: Iterator[object], request: Request) -> Iterator[bytes]:
        """Yield one line for each item, then END."""
        for item in items:
            yield self._ahead(_line(item) + request.eol)
        yield self._ahead(b"END" + request.eol)

    def encode_error(self, error: ReplyError, request: Request | None) -> bytes:
        """Return the error line, in memcached's words."""
        word = b"ERROR "
        if isinstance(error, ClientError):
            word = b"CLIENT_ERROR "
        elif isinstance(error, ServerError):
            word = b"SERVER_ERROR "
        text = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in str(error))
        eol = request.eol if request else self._eol
        return self._ahead(word + text.encode("utf-8", "replace") + eol)

    def _on_telnet(self, match: re.Match[bytes]) -> bytes:
        """Note the answer to one of telnet's commands; return what stays of it in the line."""
        kind, option = match[0][1:2], match[0][2:3]
        if len(self._telnet) >= _MOST_ANSWERS:
            pass  # who sends no request needs no answers
        elif kind == _DO and option:
            self._telnet += _IAC + (_WILL if option == _TIMING_MARK else _WONT) + option
        elif kind == _WILL and option:
            self._telnet += _IAC + _DONT + option
        return _IAC if kind == _IAC else b""

    def _ahead(self, reply: bytes) -> bytes:
        """Put answers to telnet ahead of a reply."""
        if self._telnet:
            reply, self._telnet = self._telnet + reply, b""
        return reply

    def _unfinished(self, begin: int) -> Bad | None:
        """Judge bytes without a line ending: wait for more, or give up."""
        if self._first and self._buffer.startswith(_TLS_HELLO, begin):
            return self._stranger(_TLS_HELLO)
        # One byte more may be the CR of the ending.
        if len(self._buffer) - begin > self.limits.max_line_bytes + 1:
            return self._too_long()
        return None

    def _unacceptable(self, line: bytes, eol: bytes) -> Bad | None:
        """Refuse a line that is too long, or a first line that a stranger sent."""
        if self._first and line.startswith(_TLS_HELLO):
            return self._stranger(line)
        if len(line) > self.limits.max_line_bytes:
            return self._too_long()
        if self._first and _HTTP.match(line):
            self._eol = eol
            return self._stranger(line)
        return None

    def _request(self, line: bytes, words: list[bytes], begin: int) -> Request | Bad | None:
        """Return the request of a line that holds at least a word and begins at ``begin``."""
        verb = words.pop(0)
        command = self.commands.get(verb) or self.commands.get(verb.upper())
        if command is None:
            if verb[:5].upper() == b"HOST:" or _HTTP.match(line):
                return self._stranger(line)
            command = self.unknown
        if _NUL in line or _CR in line:
            return self._refused(command, "the line holds a NUL or a lone CR")
        quoted = _DOUBLE in line or _SINGLE in line
        if command is not None and (quoted or command.rest_after is not None):
            text = line[line.index(verb) + len(verb) :]
            try:
                words = _split(text, command.rest_after)
            except ValueError as error:
                return self._refused(command, str(error))
        request = Request(verb, words, command, None, self._eol, line)
        if command is None or command.size_word is None or command.size_word >= len(words):
            return request
        return self._with_body(request, words[command.size_word], begin)

    def _with_body(self, request: Request, size_word: bytes, begin: int) -> Request | Bad | None:
        """Add the data block; if it has not all arrived, step back to the line and wait."""
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
        """Refuse one line; where a data block would follow it, the place is lost too."""
        if command is not None and command.size_word is not None:
            return self._lost(f"{text}, so the size of the data block is not known")
        return Bad(self.encode_error(ClientError(text), None), close=False)

    def _too_long(self) -> Bad:
        return self._lost(f"a line may hold {self.limits.max_line_bytes} bytes at most")

    def _lost(self, text: str) -> Bad:
        self._forget()
        return Bad(self.encode_error(ClientError(text), None), close=True)

    def _stranger(self, line: bytes) -> Bad:
        self._forget()
        if line.startswith(_TLS_HELLO):
            return Bad(b"", close=True, why="TLS hello")
        error = UnknownCommand("this is not an HTTP server")
        return Bad(self.encode_error(error, None), close=True, why="HTTP")


def _split(text: bytes, rest_after: int | None) -> list[bytes]:
    """Return the words of a text, quotes removed; behind ``rest_after`` words, the rest as it is.

    Raises:
        ValueError: A quote does not close, or a word goes on behind the closing quote.
    """
    words: list[bytes] = []
    at = 0
    while rest_after is None or len(words) < rest_after:
        match = _WORD.match(text, at)
        if match is None:
            if text[at:].strip(_BLANKS):
                raise ValueError("a quoted word does not end with its quote and a blank")
            return words
        double, single, bare = match.groups()
        if double is not None:
            words.append(_ESCAPE.sub(_unescaped, double))
        elif single is not None:
            words.append(single.replace(b"\\'", b"'"))
        else:
            words.append(bare)
        at = match.end()
    if rest := text[at:].lstrip(_BLANKS):
        words.append(rest)
    return words


def _unescaped(match: re.Match[bytes]) -> bytes:
    if match[1] is not None:
        return bytes([int(match[1], 16)])
    return _ESCAPED.get(match[2], match[2])


def _line(item: object) -> bytes:
    """Return one line of a reply that has several.

    Raises:
        TypeError, ValueError: As for ``Line.encode``.
    """
    row = item if isinstance(item, (list, tuple)) else (item,)
    text = b" ".join(_word(part) for part in row)
    return text if text != b"END" else b'"END"'


def _word(value: object) -> bytes:
    text = b"-" if value is None else _scalar(value)
    if text is None:
        raise TypeError(f"no line is defined for {type(value).__name__}")
    if _LF in text or _CR in text:
        raise ValueError("a line of a reply holds a line break")
    return text


def _lines(value: object) -> Iterable[object]:
    """Return the lines of a value that is not a scalar.

    Raises:
        TypeError: No lines are defined for such a value.
    """
    if isinstance(value, Mapping):
        return value.items()
    kind: type = type(value)
    if attrs.has(kind):
        return [(field.name, getattr(value, field.name)) for field in attrs.fields(kind)]
    if fields := getattr(kind, "__dataclass_fields__", None):
        return [(name, getattr(value, name)) for name in fields]
    if isinstance(value, Iterable):
        return value
    raise TypeError(f"no reply is defined for {type(value).__name__}")


_SCALARS: dict[type, Callable[[Any], bytes]] = {
    str: str.encode,
    bytes: bytes,
    int: b"%d".__mod__,
    bool: lambda value: b"true" if value else b"false",
    float: lambda value: repr(value).encode(),
    type(None): lambda _: b"OK",
}
# Known by their module, so that none of them need be imported before the user does.
_SHOWN_BY_STR = {"decimal", "uuid", "pathlib", "ipaddress", "fractions"}


def _scalar(value: object) -> bytes | None:
    """Return the text of a value that is one word or one line, or None: it is not of that kind."""
    encode = _SCALARS.get(type(value))
    if encode is not None:
        return encode(value)
    if isinstance(value, Enum):
        return _scalar(value.value)
    if isinstance(value, (date, time)):
        return value.isoformat().encode()
    if type(value).__module__.partition(".")[0] in _SHOWN_BY_STR:
        return str(value).encode()
    if isinstance(value, (bytearray, memoryview)):
        return bytes(value)
    for kind in (str, bytes, int, float):
        if isinstance(value, kind):
            return _SCALARS[kind](value)
    return None
