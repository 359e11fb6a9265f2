r"""Requests of memcached's text protocol: the classic commands and the meta commands.

The rules are those of memcached's doc/protocol.txt and, where it is silent, what memcached 1.6.45
answers:

- The data block of a storage command that is refused belongs to it, if its size can be read.
- A line ends with LF, with or without CR before it; words are split on one or more spaces (not on
  tabs). A data block ends with CR LF, exactly.
- ``noreply`` at the end of a classic command silences its reply, errors included; it is removed
  before a handler sees the words. The flag ``q`` of a meta command hides only the expected replies.
- A line without an end within 2048 bytes closes the connection, unless it is a ``get`` or ``gets``.
- A data block that is too large is read and discarded to the byte; the old value of that key is
  dropped.
- The binary protocol (first byte 0x80) closes the connection without a reply.
"""

from __future__ import annotations

import re
import struct
from abc import abstractmethod
from collections.abc import Callable

from attrs import define

from linepool.protocols.base import Bad, Command, Request
from linepool.protocols.buffered import Buffered
from linepool.protocols.memcache.meta import Flags, parse_flags
from linepool.protocols.text import check_version

MAX_LINE_BYTES = 2048  # only a get with many keys may be longer
_LONG_GET = re.compile(rb" {0,100}gets? ")
MAX_KEY_BYTES = 250
ITEM_OVERHEAD_BYTES = 57  # what memcached adds to key and value for the size of an item
MAX_BLOCK_BYTES = 2**31 - 3
_TIME_RANGE = (-(2**63), 2**63 - 1)  # seconds, or Unix time, which may be after 2038
_BINARY_PROTOCOL = 0x80
_DUMP = struct.Struct("<B?Q")
_VERSION = 0x41
_FORMAT = b"CLIENT_ERROR bad command line format"
_DELETE_FORMAT = _FORMAT + b".  Usage: delete <key> [noreply]"
_EXPTIME = b"CLIENT_ERROR invalid exptime argument"
_DELTA = b"CLIENT_ERROR invalid numeric delta argument"
_CHUNK = b"CLIENT_ERROR bad data chunk"
_TOO_LARGE = b"SERVER_ERROR object too large for cache"
_ERROR = b"ERROR"
_INT = re.compile(rb"[\t\v\f\r]*[+-]?[0-9]+(?:[\t\v\f\r].*)?\Z", re.DOTALL)


@define
class MemcacheRequest(Request):
    """A request, and how to reply to it.

    Attributes:
        quiet: The client sent noreply, or the flag q.
        answer: The reply, whatever the handler returns.
        flags: The flags of a meta command; None for a classic one.
    """

    quiet: bool = False
    answer: bytes | None = None
    flags: Flags | None = None

    @property
    def is_silent(self) -> bool:
        """Whether no reply is sent, not even an error."""
        return self.quiet and self.flags is None


class MemcacheParser(Buffered):
    """Cuts the stream into requests; ``Memcache`` adds the replies."""

    version: str
    max_multiget_bytes: int

    def start(self) -> None:
        """Set up the state of a new connection."""
        super().start()
        self._discard_bytes = 0  # bytes of a refused data block that have not arrived yet
        self._first = True  # no byte has been read yet

    def feed(self, data: bytes) -> None:
        """Take bytes from the client, cut anywhere."""
        if self._discard_bytes:
            discarded = min(self._discard_bytes, len(data))
            self._discard_bytes -= discarded
            data = data[discarded:]
        super().feed(data)

    @property
    def at_boundary(self) -> bool:
        """Whether no byte of a further request has arrived."""
        return self._at >= len(self._buffer) and not self._discard_bytes

    def next_request(self) -> Request | Bad | None:
        """Return the next complete request, a Bad in its place, or None: more bytes are needed."""
        if self._needed and not self._join_block():
            return None
        begin = self._at
        end = self._buffer.find(b"\n", begin)
        if self._first and self._is_binary(begin):
            return self._reject("memcached's binary protocol")
        if end < 0:
            return self._unfinished(begin)
        if end - begin > MAX_LINE_BYTES and self._is_too_long(begin, end):
            return self._reject("a line without end")
        stop = end - (end > begin + 1 and self._buffer[end - 1] == 0x0D)
        line = self._buffer[begin:stop]
        self._at = end + 1
        if 0 in line:  # where the line ends for memcached, which is written in C
            line = line[: line.index(b"\0")]
        words = line.split(b" ")
        if b"" in words:
            words = [word for word in words if word]
        if self.is_locked:
            return self._before_login(line, words, begin)
        if not words or len(words[0]) < 2:
            return _refused(_ERROR if len(line) > 1 else _FORMAT)
        parse = PARSERS.get(words[0])
        if parse is None:
            return self._extra_command(line, words)
        return parse(self, line, words, begin)

    @abstractmethod
    def _before_login(self, line: bytes, words: list[bytes], begin: int) -> Request | Bad | None:
        """Return what a line is before the client has logged in."""

    def eof(self) -> Bad | None:
        """Return None: memcached sends no error to a client that leaves inside a request."""
        return None

    def take_unread(self) -> bytes | None:
        """Return what has arrived of the next request, and forget it; None: it must be read here."""
        return None if self._discard_bytes else super().take_unread()

    def note_text(self) -> None:
        """Note that the client speaks the text protocol: a request of it was read elsewhere."""
        self._first = False

    @property
    def is_replaceable(self) -> bool:
        """Whether this is in its initial state, so that a new object could replace it."""
        return self._at >= len(self._buffer) and not self._discard_bytes

    def dump(self) -> bytes:
        """Return all state: the bytes not yet read, and how many of the next to discard."""
        return _DUMP.pack(_VERSION, self._first, self._discard_bytes) + self._unread()

    def load(self, blob: bytes) -> None:
        """Take over the state of a ``dump``."""
        check_version(blob, _VERSION, _DUMP.size, "memcached's protocol")
        self.start()
        _, self._first, self._discard_bytes = _DUMP.unpack_from(blob)
        self._buffer = blob[_DUMP.size :]

    def _is_binary(self, begin: int) -> bool:
        """Whether the first byte is that of memcached's binary protocol."""
        self._first = begin >= len(self._buffer)
        return not self._first and self._buffer[begin] == _BINARY_PROTOCOL

    def _unfinished(self, begin: int) -> Bad | None:
        """Return the error for bytes without a line ending, or None: wait for the rest."""
        stop = len(self._buffer)
        if stop - begin > MAX_LINE_BYTES and self._is_too_long(begin, stop):
            return self._reject("a line without end")
        self._await_line(self.max_multiget_bytes + 1)
        return None

    def _is_too_long(self, begin: int, end: int) -> bool:
        """Whether a line of more than 2048 bytes is not a get within its own limit."""
        is_get = _LONG_GET.match(self._buffer, begin)
        return is_get is None or self.is_locked or end - begin > self.max_multiget_bytes

    def _reject(self, why: str) -> Bad:
        """Close without a reply."""
        self._forget()
        return Bad(b"", close=True, why=why)

    def _extra_command(self, line: bytes, words: list[bytes]) -> Request | Bad | None:
        """Return the request of a command that memcached itself does not have."""
        command = self.commands.get(words[0], self.unknown)
        quiet = command is not None and words[-1] == b"noreply"
        stop = len(words) - quiet
        return MemcacheRequest(words[0], words[1:stop], command, None, line=line, quiet=quiet)

    def _get(self, line: bytes, words: list[bytes], _begin: int) -> Request | Bad:
        verb = words.pop(0)
        if not words:
            return _refused(_FORMAT)
        for key in words:
            if len(key) > MAX_KEY_BYTES:
                return _refused(_FORMAT)
        return MemcacheRequest(verb, words, self._command(verb), line=line)

    def _get_and_touch(self, line: bytes, words: list[bytes], begin: int) -> Request | Bad:
        if len(words) < 3:
            return _refused(_FORMAT)
        if not _is_int(words[1], *_TIME_RANGE):
            return _refused(_EXPTIME)
        return self._get(line, words, begin)

    def _storage(self, line: bytes, words: list[bytes], begin: int) -> Request | Bad | None:
        """``set key flags exptime bytes [unique] [noreply]``, then the data block."""
        verb = words[0]
        if len(words) < 5 or not _is_int(words[4], 0, MAX_BLOCK_BYTES):
            return _refused(_FORMAT, words[-1] == b"noreply")
        quiet = words[-1] == b"noreply"
        words = words[1 : 6 if verb == b"cas" else 5]
        key, flags, exptime, size = words[:4]
        if not (
            len(key) <= MAX_KEY_BYTES
            and _is_int(flags, 0, 2**32 - 1)
            and _is_int(exptime, *_TIME_RANGE)
            and (verb != b"cas" or (len(words) == 5 and _is_int(words[4], 0, 2**64 - 1)))
        ):
            self._skip(int(_digits(size)) + 2)
            return _refused(_FORMAT, quiet)
        words = [key, *map(_digits, words[1:])]
        request = MemcacheRequest(verb, words, self._command(verb), line=line, quiet=quiet)
        return self._with_block(request, int(_digits(size)), begin)

    def _with_block(self, request: MemcacheRequest, size: int, begin: int) -> Request | Bad | None:
        """Add the data block, or step back to the line and wait if it has not all arrived."""
        if size + len(request.words[0]) + ITEM_OVERHEAD_BYTES > self.limits.max_body_bytes:
            return self._too_large(request, size)
        stop = self._at + size
        if len(self._buffer) < stop + 2:
            self._needed = stop + 2 - begin
            self._at = begin
            return None
        request.body = self._buffer[self._at : stop]
        self._at = stop + 2
        if self._buffer[stop : stop + 2] != b"\r\n":
            return _refused(_CHUNK, request.is_silent)
        return request

    def _too_large(self, request: MemcacheRequest, size: int) -> Request | Bad:
        """Refuse a data block, and delete the item that it was to replace: that is outdated."""
        self._skip(size + 2)
        quiet = request.is_silent
        delete = self.commands.get(b"delete")
        if delete is None or request.verb not in (b"set", b"ms"):
            return _refused(_TOO_LARGE, quiet)
        key = request.words[:1]
        return MemcacheRequest(
            b"delete", key, delete, line=request.line, quiet=quiet, answer=_TOO_LARGE
        )

    def _skip(self, size: int) -> None:
        """Discard the next bytes of the stream, those that have arrived and those that will."""
        arrived = min(size, len(self._buffer) - self._at)
        self._at += arrived
        self._discard_bytes = size - arrived

    def _arithmetic(self, line: bytes, words: list[bytes], _begin: int) -> Request | Bad:
        """``incr key delta [noreply]``."""
        quiet = words[-1] == b"noreply"
        if len(words) < 3 or len(words[1]) > MAX_KEY_BYTES:
            return _refused(_FORMAT, quiet)
        if not _is_int(words[2], 0, 2**64 - 1):
            return _refused(_DELTA, quiet)
        return self._classic(line, words, 3, quiet)

    def _touch(self, line: bytes, words: list[bytes], _begin: int) -> Request | Bad:
        """``touch key exptime [noreply]``."""
        quiet = words[-1] == b"noreply"
        if len(words) < 3 or len(words[1]) > MAX_KEY_BYTES:
            return _refused(_FORMAT, quiet)
        if not _is_int(words[2], *_TIME_RANGE):
            return _refused(_EXPTIME, quiet)
        return self._classic(line, words, 3, quiet)

    def _delete(self, line: bytes, words: list[bytes], _begin: int) -> Request | Bad:
        """``delete key [0] [noreply]``; libmemcached's test expects an error for anything else."""
        quiet = len(words) > 2 and words[-1] == b"noreply"
        if len(words) > 4:
            return _refused(_ERROR)
        if words[2:] not in ([], [b"0"], [b"noreply"], [b"0", b"noreply"]):
            return _refused(_DELETE_FORMAT, quiet)
        if len(words) < 2 or len(words[1]) > MAX_KEY_BYTES:
            return _refused(_FORMAT, quiet)
        return self._classic(line, words, 2, quiet)

    def _flush_all(self, line: bytes, words: list[bytes], _begin: int) -> Request | Bad:
        """``flush_all [delay] [noreply]``."""
        quiet = words[-1] == b"noreply"
        given = words[1 : len(words) - quiet]
        if given and not _is_int(given[0], *_TIME_RANGE):
            return _refused(_EXPTIME, quiet)
        return self._classic(line, words, 2 if given else 1, quiet)

    def _never_quiet(self, line: bytes, words: list[bytes], _begin: int) -> Request | Bad:
        """A command that always has a reply, whatever words follow it."""
        return MemcacheRequest(words[0], words[1:], self._command(words[0]), line=line)

    def _verbosity(self, line: bytes, words: list[bytes], _begin: int) -> Request | Bad:
        """``verbosity level [noreply]``."""
        quiet = words[-1] == b"noreply"
        if len(words) < 2 or not _is_int(words[1], 0, 2**32 - 1):
            return _refused(_FORMAT, quiet)
        return self._classic(line, words, 2, quiet)

    def _classic(self, line: bytes, words: list[bytes], count: int, quiet: bool) -> Request:
        """Return the request of a line, with the first ``count`` of its words."""
        verb = words[0]
        given = [words[1], *map(_digits, words[2:count])] if count > 2 else words[1:count]
        return MemcacheRequest(verb, given, self._command(verb), line=line, quiet=quiet)

    def _meta(self, line: bytes, words: list[bytes], begin: int) -> Request | Bad | None:
        """``mg key flags*`` and the like; ``ms key size flags*``, then the data block."""
        verb = words[0]
        if verb == b"mn":
            return MemcacheRequest(verb, [], self._command(verb), line=line)
        flags_at = 3 if verb == b"ms" else 2
        if len(words) < flags_at:
            return _refused(_FORMAT)
        size = 0
        if verb == b"ms":
            if not _is_int(words[2], 0, MAX_BLOCK_BYTES):
                return _refused(_FORMAT)
            size = int(_digits(words[2]))
        if len(words[1]) > MAX_KEY_BYTES:
            if verb == b"ms":
                self._skip(size + 2)
            return _refused(_FORMAT)
        key, flags, error = parse_flags(verb, words[1], words[flags_at:])
        if error:
            if verb == b"ms":
                self._skip(size + 2)
            return _refused(error)
        request = MemcacheRequest(verb, [key], self._command(verb), line=line)
        request.flags = flags
        request.quiet = "q" in flags
        if verb != b"ms":
            return request
        request.words.append(b"%d" % size)
        return self._with_block(request, size, begin)

    def _command(self, verb: bytes) -> Command | None:
        return self.commands.get(verb, self.unknown)


_Parser = Callable[[MemcacheParser, bytes, list[bytes], int], Request | Bad | None]
PARSERS: dict[bytes, _Parser] = {
    **dict.fromkeys((b"get", b"gets"), MemcacheParser._get),
    **dict.fromkeys((b"gat", b"gats"), MemcacheParser._get_and_touch),
    **dict.fromkeys(
        (b"set", b"add", b"replace", b"append", b"prepend", b"cas"), MemcacheParser._storage
    ),
    **dict.fromkeys((b"incr", b"decr"), MemcacheParser._arithmetic),
    **dict.fromkeys((b"mg", b"ms", b"md", b"ma", b"mn", b"me"), MemcacheParser._meta),
    **dict.fromkeys((b"stats", b"version", b"quit"), MemcacheParser._never_quiet),
    b"touch": MemcacheParser._touch,
    b"delete": MemcacheParser._delete,
    b"flush_all": MemcacheParser._flush_all,
    b"verbosity": MemcacheParser._verbosity,
}


def _refused(text: bytes, quiet: bool = False) -> Bad:
    return Bad(b"" if quiet or not text else text + b"\r\n", close=False)


def _digits(word: bytes) -> bytes:
    """Return the number at the start of a word that ``_is_int`` accepts, as strtol(3) would."""
    return word.split()[0]


def _is_int(word: bytes, low: int, high: int) -> bool:
    """Whether strtol(3) finds a number within bounds, followed by a blank or by nothing."""
    if word.isdigit() and len(word) < 10:
        return low <= 0
    return len(word) < 64 and bool(_INT.match(word)) and low <= int(_digits(word)) <= high
