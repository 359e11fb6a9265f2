r"""memcached's text protocol: the classic commands and the meta commands.

Rules come from memcached's doc/protocol.txt and, where that is silent, from what memcached 1.6.18
answers:

- A line ends with LF, with or without CR before it; words are split on blanks (not on tabs), and
  more blanks do no harm. A data block ends with CR LF, exactly.
- ``noreply`` at the end of a classic command silences its reply, errors included; it is taken off
  before a handler sees the words. The flag ``q`` of a meta command hides the expected replies only.
- A line without an end within 2048 bytes ends the connection, unless it is a ``get`` or ``gets``.
- A data block that is too large is read away to the byte; the old value of that key is dropped.
- An HTTP request, and the binary protocol (first byte 0x80), end the connection without a word.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar

from attrs import define

from linepool.errors import ReplyError, ServerError, UnknownCommand, UsageError
from linepool.protocols.base import Bad, Builtin, Command, Request
from linepool.protocols.buffered import Buffered
from linepool.protocols.memcache.meta import Flags, Meta, encode_meta, parse_flags
from linepool.protocols.memcache.replies import Value, encode_reply, encode_value
from linepool.session import Reply

_LONG_LINE = 2048  # bytes; only a get with many keys may be longer
_LONG_GET = re.compile(rb" {0,100}gets? ")
_MOST_KEY_BYTES = 250
_ITEM_BYTES = 57  # what memcached adds to key and value when it weighs an item
_MOST_SIZE = 2**31 - 3
_TIME = (-(2**63), 2**63 - 1)  # seconds; a moment beyond the year 2038 is one
_BINARY = 0x80
_DUMP = struct.Struct("<B?Q")
_VERSION = 1
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
    """A request, and how its reply is to be given.

    Attributes:
        quiet: The client said noreply, or gave the flag q.
        answer: The reply, whatever the handler returns.
        flags: Those of a meta command.
    """

    quiet: bool = False
    answer: bytes | None = None
    flags: Flags | None = None


class Memcache(Buffered):
    """memcached's text protocol.

    Args:
        version: What ``version`` answers.
        max_multiget_bytes: How long the line of a get may be. Other lines may have 2048 bytes.
    """

    ignores_case = False
    supplies: ClassVar[Mapping[Any, Callable[[Request, Any], object]]] = {
        Flags: lambda request, _conversation: _flags(request)
    }

    def __init__(
        self, *, version: str = "1.6.18-linepool", max_multiget_bytes: int = 1024 * 1024
    ) -> None:
        self.version = version
        self.max_multiget_bytes = max_multiget_bytes

    def builtins(self) -> Iterable[Builtin]:
        """version, verbosity, mn and quit."""
        return _BUILTINS

    def start(self) -> None:
        """Set up the state of a new connection."""
        super().start()
        self._swallow = 0  # bytes of a refused data block that are still to come
        self._first = True

    def feed(self, data: bytes) -> None:
        """Take bytes from the client, cut anywhere."""
        if self._swallow:
            gone = min(self._swallow, len(data))
            self._swallow -= gone
            data = data[gone:]
        super().feed(data)

    @property
    def at_boundary(self) -> bool:
        """Whether no byte of a further request has arrived."""
        return self._at >= len(self._buffer) and not self._swallow

    def next_request(self) -> Request | Bad | None:
        """Return the next complete request, a Bad in its place, or None: more bytes are needed."""
        if self._needed and not self._join_block():
            return None
        begin = self._at
        end = self._buffer.find(b"\n", begin)
        if self._first and begin < len(self._buffer):
            self._first = False
            if self._buffer[begin] == _BINARY:
                return self._stranger("memcached's binary protocol")
        if end < 0:
            return self._unfinished(begin)
        stop = end
        if end > begin + 1 and self._buffer[end - 1] == 0x0D:
            stop = end - 1
        line = self._buffer[begin:stop]
        self._at = end + 1
        if 0 in line:  # where the line ends for memcached, which is written in C
            line = line[: line.index(b"\0")]
        words = line.split(b" ")
        if b"" in words:
            words = [word for word in words if word]
        if not words or len(words[0]) < 2:
            return _refused(_ERROR)
        parse = _PARSERS.get(words[0])
        if parse is None:
            return self._other(line, words)
        return parse(self, line, words, begin)

    def eof(self) -> Bad | None:
        """Return None: memcached says nothing to a client that leaves inside a request."""
        return None

    @property
    def is_replaceable(self) -> bool:
        """Whether this is in its initial state, so that a new object could replace it."""
        return self._at >= len(self._buffer) and not self._swallow

    def dump(self) -> bytes:
        """Return all state: the bytes not yet read, and how many are to be read away."""
        return _DUMP.pack(_VERSION, self._first, self._swallow) + self._rest()

    def load(self, blob: bytes) -> None:
        """Take over the state of a ``dump``."""
        if len(blob) < _DUMP.size or blob[0] != _VERSION:
            raise ValueError("not a dump of this version of memcached's protocol")
        self.start()
        _, self._first, self._swallow = _DUMP.unpack_from(blob)
        self._buffer = blob[_DUMP.size :]

    # -- replies

    def encode(self, value: object, request: Request) -> bytes:
        """Return the reply, or b"": the client wants none.

        A Value, or several, end with END; so do the pairs of a dict (STAT lines). None is END after
        a get and OK after anything else; True and False are memcached's words for the command
        (STORED and NOT_STORED, DELETED and NOT_FOUND, ...); an int, str or bytes is one line, but
        after a get of one key it is that key's value.
        """
        if isinstance(request, MemcacheRequest):
            if request.answer is not None:
                return b"" if request.quiet else request.answer + b"\r\n"
            if isinstance(value, Meta):
                return encode_meta(value, request.verb, _flags(request), request.quiet)
            if request.quiet and request.flags is None:
                return b""
        return encode_reply(value, request)

    def encode_stream(self, items: Iterator[object], request: Request) -> Iterator[bytes]:
        """Yield the blocks of a get that comes in parts, then END."""
        quiet = isinstance(request, MemcacheRequest) and request.quiet
        for item in items:
            if not isinstance(item, Value):
                raise TypeError(f"a stream yields Value, not {type(item).__name__}")
            if not quiet:
                yield encode_value(item)
        if not quiet:
            yield b"END\r\n"

    def encode_error(self, error: ReplyError, request: Request | None) -> bytes:
        """Return the error line, or b"" after ``noreply``."""
        if isinstance(request, MemcacheRequest) and request.quiet and request.flags is None:
            return b""
        if isinstance(error, UnknownCommand):
            return b"ERROR\r\n"
        if isinstance(error, UsageError) and error.problem in ("missing", "surplus"):
            return b"ERROR\r\n"
        word = b"SERVER_ERROR " if isinstance(error, ServerError) else b"CLIENT_ERROR "
        text = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in str(error))
        return word + text.encode("utf-8", "replace") + b"\r\n"

    # -- requests

    def _unfinished(self, begin: int) -> Bad | None:
        """Judge bytes without a line ending: wait for more, or give up."""
        length = len(self._buffer) - begin
        if length <= _LONG_LINE:
            return None
        if length <= self.max_multiget_bytes and _LONG_GET.match(self._buffer, begin):
            return None
        return self._stranger("a line without end")

    def _stranger(self, why: str) -> Bad:
        self._forget()
        return Bad(b"", close=True, why=why)

    def _other(self, line: bytes, words: list[bytes]) -> Request | Bad | None:
        """Return the request of a command that memcached does not have."""
        if words[-1].startswith(b"HTTP/"):
            return self._stranger("HTTP")
        command = self.commands.get(words[0], self.unknown)
        quiet = command is not None and words[-1] == b"noreply"
        last = len(words) - quiet
        return MemcacheRequest(words[0], words[1:last], command, None, line=line, quiet=quiet)

    def _get(self, line: bytes, words: list[bytes], _begin: int) -> Request | Bad:
        verb = words.pop(0)
        if not words:
            return _refused(_ERROR)
        for word in words:
            if len(word) > _MOST_KEY_BYTES:
                return _refused(_FORMAT)
        return MemcacheRequest(verb, words, self._command(verb), line=line)

    def _get_and_touch(self, line: bytes, words: list[bytes], begin: int) -> Request | Bad:
        if len(words) < 2:
            return _refused(_ERROR)
        if not _is_int(words[1], *_TIME):
            return _refused(_EXPTIME)
        if len(words) == 2:  # no keys, no items
            return _refused(b"END")
        return self._get(line, words, begin)

    def _storage(self, line: bytes, words: list[bytes], begin: int) -> Request | Bad | None:
        """``set key flags exptime bytes [unique] [noreply]``, then the data block."""
        verb = words[0]
        count = 6 if verb == b"cas" else 5
        if len(words) not in (count, count + 1):
            return _refused(_ERROR)
        quiet = words[-1] == b"noreply"
        words = words[1:count]
        key, flags, exptime, size = words[:4]
        if not (
            len(key) <= _MOST_KEY_BYTES
            and _is_int(flags, 0, 2**32 - 1)
            and _is_int(exptime, *_TIME)
            and _is_int(size, 0, _MOST_SIZE)
            and (count == 5 or _is_int(words[4], 0, 2**64 - 1))
        ):
            return _refused(_FORMAT, quiet)
        words = [key, *map(_number, words[1:])]
        request = MemcacheRequest(verb, words, self._command(verb), line=line, quiet=quiet)
        return self._with_block(request, int(size), begin)

    def _with_block(self, request: MemcacheRequest, size: int, begin: int) -> Request | Bad | None:
        """Add the data block; if it has not all arrived, step back to the line and wait."""
        if size + len(request.words[0]) + _ITEM_BYTES > self.limits.max_body_bytes:
            return self._too_large(request, size)
        stop = self._at + size
        if len(self._buffer) < stop + 2:
            self._needed = stop + 2 - begin
            self._at = begin
            return None
        request.body = self._buffer[self._at : stop]
        self._at = stop + 2
        if self._buffer[stop : stop + 2] != b"\r\n":
            return _refused(_CHUNK, request.quiet and request.flags is None)
        return request

    def _too_large(self, request: MemcacheRequest, size: int) -> Request | Bad:
        """Refuse a data block; what the client wanted to replace must not be served any more."""
        self._skip(size + 2)
        quiet = request.quiet and request.flags is None
        delete = self.commands.get(b"delete")
        if delete is None or request.verb not in (b"set", b"ms"):
            return _refused(_TOO_LARGE, quiet)
        words = request.words[:1]
        return MemcacheRequest(
            b"delete", words, delete, line=request.line, quiet=quiet, answer=_TOO_LARGE
        )

    def _skip(self, size: int) -> None:
        """Read away the next bytes, now and as they come."""
        here = min(size, len(self._buffer) - self._at)
        self._at += here
        self._swallow = size - here

    def _arithmetic(self, line: bytes, words: list[bytes], _begin: int) -> Request | Bad:
        """``incr key delta [noreply]``."""
        quiet = words[-1] == b"noreply"
        if len(words) not in (3, 4):
            return _refused(_ERROR)
        if len(words[1]) > _MOST_KEY_BYTES:
            return _refused(_FORMAT, quiet)
        if not _is_int(words[2], 0, 2**64 - 1):
            return _refused(_DELTA, quiet)
        return self._classic(line, words, 3, quiet)

    def _touch(self, line: bytes, words: list[bytes], _begin: int) -> Request | Bad:
        """``touch key exptime [noreply]``."""
        quiet = words[-1] == b"noreply"
        if len(words) not in (3, 4):
            return _refused(_ERROR)
        if len(words[1]) > _MOST_KEY_BYTES:
            return _refused(_FORMAT, quiet)
        if not _is_int(words[2], *_TIME):
            return _refused(_EXPTIME, quiet)
        return self._classic(line, words, 3, quiet)

    def _delete(self, line: bytes, words: list[bytes], _begin: int) -> Request | Bad:
        """``delete key [0] [noreply]``."""
        if not 2 <= len(words) <= 4:
            return _refused(_ERROR)
        quiet = len(words) > 2 and words[-1] == b"noreply"
        if words[2:] not in ([], [b"0"], [b"noreply"], [b"0", b"noreply"]):
            return _refused(_DELETE_FORMAT, quiet)
        if len(words[1]) > _MOST_KEY_BYTES:
            return _refused(_FORMAT, quiet)
        return self._classic(line, words, 2, quiet)

    def _flush_all(self, line: bytes, words: list[bytes], _begin: int) -> Request | Bad:
        """``flush_all [delay] [noreply]``."""
        quiet = words[-1] == b"noreply"
        if len(words) > 3:
            return _refused(_ERROR)
        given = words[1 : len(words) - quiet]
        if given and not _is_int(given[0], *_TIME):
            return _refused(_EXPTIME, quiet)
        return self._classic(line, words, 2 if given else 1, quiet)

    def _plain(self, line: bytes, words: list[bytes], _begin: int) -> Request | Bad:
        """A command that always has a reply, whatever words follow it."""
        return MemcacheRequest(words[0], words[1:], self._command(words[0]), line=line)

    def _verbosity(self, line: bytes, words: list[bytes], _begin: int) -> Request | Bad:
        """``verbosity level [noreply]``."""
        quiet = words[-1] == b"noreply"
        if len(words) not in (2, 3):
            return _refused(_ERROR)
        if quiet and len(words) == 2:
            return _refused(b"")
        if not _is_int(words[1], 0, 2**32 - 1):
            return _refused(_FORMAT, quiet)
        return self._classic(line, words, 2, quiet)

    def _classic(self, line: bytes, words: list[bytes], count: int, quiet: bool) -> Request:
        """Return the request of a line, with so many of its words."""
        verb = words[0]
        given = [words[1], *map(_number, words[2:count])] if count > 2 else words[1:count]
        return MemcacheRequest(verb, given, self._command(verb), line=line, quiet=quiet)

    def _meta(self, line: bytes, words: list[bytes], begin: int) -> Request | Bad | None:
        """``mg key flags*`` and its like; ``ms key size flags*``, then the data block."""
        verb = words[0]
        if verb == b"mn":
            return MemcacheRequest(verb, [], self._command(verb), line=line)
        at = 3 if verb == b"ms" else 2
        if len(words) < 2 and verb != b"me":
            return _refused(_ERROR)
        if len(words) < at or len(words[1]) > _MOST_KEY_BYTES:
            return _refused(_FORMAT)
        size = 0
        if verb == b"ms":
            if not _is_int(words[2], 0, _MOST_SIZE):
                return _refused(_FORMAT)
            size = int(_number(words[2]))
        key, flags, problem = parse_flags(verb, words[1], words[at:])
        if problem:
            if verb == b"ms":
                self._skip(size + 2)
            return _refused(problem)
        request = MemcacheRequest(verb, [key], self._command(verb), line=line)
        request.flags = flags
        request.quiet = "q" in flags
        if verb != b"ms":
            return request
        request.words.append(b"%d" % size)
        return self._with_block(request, size, begin)

    def _command(self, verb: bytes) -> Command | None:
        return self.commands.get(verb, self.unknown)


_Parser = Callable[[Memcache, bytes, list[bytes], int], Request | Bad | None]
_PARSERS: dict[bytes, _Parser] = {
    **dict.fromkeys((b"get", b"gets"), Memcache._get),
    **dict.fromkeys((b"gat", b"gats"), Memcache._get_and_touch),
    **dict.fromkeys((b"set", b"add", b"replace", b"append", b"prepend", b"cas"), Memcache._storage),
    **dict.fromkeys((b"incr", b"decr"), Memcache._arithmetic),
    **dict.fromkeys((b"mg", b"ms", b"md", b"ma", b"mn", b"me"), Memcache._meta),
    **dict.fromkeys((b"stats", b"version", b"quit"), Memcache._plain),
    b"touch": Memcache._touch,
    b"delete": Memcache._delete,
    b"flush_all": Memcache._flush_all,
    b"verbosity": Memcache._verbosity,
}


def _version(protocol: Memcache, *_ignored: bytes) -> str:
    """Tell the server's version."""
    return f"VERSION {protocol.version}"


def _verbosity(level: bytes) -> None:
    """Do nothing, and say OK: logging is the server's business."""


def _mn() -> Meta:
    """Mark the place behind quiet meta commands."""
    return Meta("MN")


def _quit(*_ignored: bytes) -> Reply:
    """Close the connection without a word."""
    return Reply(raw=b"", close=True)


_BUILTINS: tuple[Builtin, ...] = (
    (("version",), _version),
    (("verbosity",), _verbosity),
    (("mn",), _mn),
    (("quit",), _quit),
)


def _refused(text: bytes, quiet: bool = False) -> Bad:
    return Bad(b"" if quiet or not text else text + b"\r\n", close=False)


def _flags(request: Request) -> Flags:
    found = request.flags if isinstance(request, MemcacheRequest) else None
    return Flags() if found is None else found


def _number(word: bytes) -> bytes:
    """Return a number as strtol(3) reads it: up to what is no digit, after a check that it is one."""
    return word.split()[0]


def _is_int(word: bytes, low: int, high: int) -> bool:
    """Whether strtol(3) reads a number there, within bounds, and a blank or nothing behind it."""
    if word.isdigit() and len(word) < 10:
        return low <= 0
    return len(word) < 64 and bool(_INT.match(word)) and low <= int(_number(word)) <= high
