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
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate

from linepool.errors import ClientError, ReplyError, ServerError
from linepool.protocols import telnet
from linepool.protocols.base import SKIPPED, Bad, Builtin, Command, Request, printable
from linepool.protocols.buffered import Buffered
from linepool.protocols.builtin import HELP, QUIT
from linepool.protocols.text import check_version, one_line, record_fields, scalar_text, unquote

# ``_LF in data`` takes a fifth of the time of ``b"\n" in data``, which raises and catches an
# exception internally.
_NUL, _LF, _CR, _DOUBLE, _SINGLE = b"\0\n\r\"'"
_IAC_BYTE = telnet.IAC_BYTE
_WORD = re.compile(
    rb"""[ \t\v\f]*(?:("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')|([^"' \t\v\f][^ \t\v\f]*))(?=[ \t\v\f]|\Z)"""
)
_BLANKS = b" \t\v\f"
_BLANK_LINES_AT_ONCE = 100  # that one call of next_request skips
_DUMP = struct.Struct("<B2sI")
_VERSION = 0x12


class Line(Buffered):
    """The default protocol; this module's docstring states its rules."""

    _plain: list[bytes]  # lines already cut that come before the buffer, in reverse order
    _measured: list[bytes] | None = None  # the lines of which ``_sums`` knows ...
    _sums: Sequence[int] = ()  # ... how long they are, with those before them in the list

    def builtins(self) -> Iterable[Builtin]:
        """HELP and QUIT."""
        return HELP, QUIT

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
        return self._ahead(b"".join(_line(item) + eol for item in _lines(value)) + b"END" + eol)

    def encode_stream(self, items: Iterator[object], request: Request) -> Iterator[bytes]:
        """Yield one line per item, then END."""
        for item in items:
            yield self._ahead(_line(item) + request.eol)
        yield self._ahead(b"END" + request.eol)

    def encode_error(self, error: ReplyError, request: Request | None) -> bytes:
        """Return the error line, with memcached's prefix."""
        prefix = b"ERROR "
        if isinstance(error, ClientError):
            prefix = b"CLIENT_ERROR "
        elif isinstance(error, ServerError):
            prefix = b"SERVER_ERROR "
        eol = request.eol if request else self._eol
        return self._ahead(prefix + one_line(str(error)) + eol)

    def _ahead(self, reply: bytes) -> bytes:
        """Put answers to telnet ahead of a reply."""
        if self._telnet:
            reply, self._telnet = self._telnet + reply, b""
        return reply

    def _request(self, line: bytes, words: list[bytes], begin: int) -> Request | Bad | None:
        """Return the request of a line that holds at least one word and begins at ``begin``."""
        verb = words.pop(0)
        command = self.commands.get(verb) or self.commands.get(verb.upper(), self.unknown)
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
        return Bad(self.encode_error(ClientError(text), None), close=False)

    def _too_long(self) -> Bad:
        return self._lost(f"a line may hold {self.limits.max_line_bytes} bytes at most")

    def _lost(self, text: str) -> Bad:
        """Close: where the next request begins is unknown."""
        self._forget()
        return Bad(self.encode_error(ClientError(text), None), close=True)


def _split(text: bytes, rest_after: int | None) -> list[bytes]:
    """Return the words of a text, unquoted; after ``rest_after`` words, the rest of the text as it is.

    Raises:
        ValueError: A quote does not close, or text follows the closing quote without a blank.
    """
    words: list[bytes] = []
    at = 0
    while rest_after is None or len(words) < rest_after:
        match = _WORD.match(text, at)
        if match is None:
            if text[at:].strip(_BLANKS):
                raise ValueError("unterminated quote, or text right after a closing quote")
            return words
        quoted, bare = match.groups()
        words.append(bare if quoted is None else unquote(quoted))
        at = match.end()
    if rest := text[at:].lstrip(_BLANKS):
        words.append(rest)
    return words


def _line(item: object) -> bytes:
    """Return one line of a reply of several lines.

    Raises:
        TypeError, ValueError: As for ``Line.encode``.
    """
    row = item if isinstance(item, (list, tuple)) else (item,)
    text = b" ".join(_word(part) for part in row)
    return text if text != b"END" else b'"END"'


def _word(value: object) -> bytes:
    text = b"-" if value is None else scalar_text(value)
    if text is None:
        raise TypeError(f"cannot send a {type(value).__name__} inside a line-protocol reply")
    if _LF in text or _CR in text:
        raise ValueError("a line of a reply holds a line break")
    return text


def _lines(value: object) -> Iterable[object]:
    """Return the lines of a value that is not a scalar.

    Raises:
        TypeError: The value cannot be sent.
    """
    if isinstance(value, Mapping):
        return value.items()
    if (fields := record_fields(value)) is not None:
        return fields
    if isinstance(value, Iterable):
        return value
    raise TypeError(f"cannot send a {type(value).__name__} in a line-protocol reply")
