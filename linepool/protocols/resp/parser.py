r"""Requests in RESP: arrays of bulk strings, and inline commands.

The rules, limits and texts of errors are Redis' own (networking.c of Redis 7.0):

- A request is ``*<count>\r\n`` and so many ``$<length>\r\n<bytes>\r\n``; or a line of words, ended by
  LF, quoted as in redis-cli. ``*0``, ``*-1`` and an empty line are no request.
- Whatever breaks these rules gets an error, and the connection ends: the place is lost.
- A client that has not said its password may send little: 10 words of 16 KiB.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, cast

from linepool.errors import ClientError
from linepool.protocols.base import Bad, Request
from linepool.protocols.buffered import Buffered
from linepool.protocols.resp.values import encode_error

_INLINE = 65536  # bytes of an inline command, or of a count
_ARRAY = ord("*")
_MOST_WORDS = 1024 * 1024
_UNAUTHENTICATED_WORDS = 10
_UNAUTHENTICATED_BYTES = 16384
_SHOWN_WORDS = 4  # of a request, in logs
_SHOWN_BYTES = 64
_SECRET = {b"AUTH", b"HELLO"}
_INT = re.compile(rb"(?:0|-?[1-9][0-9]{0,18})\Z")
_STRANGERS = {b"POST", b"HOST:"}
_WORD = rb"\$(0|[1-9][0-9]{0,3})\r\n([^\r]*)\r\n"
# Whole requests of a few short words, which most are, by the digit of their count: one look takes a
# sixth of the time that it takes to go from word to word.
_WHOLE = {
    ord(str(count)): re.compile(rb"\*%d\r\n" % count + count * _WORD) for count in range(1, 6)
}
_VERSION = 1


class RespParser(Buffered):
    """What a RESP connection has read and remembers.

    Attributes:
        version: The version of the protocol, 2 or 3.
        authenticated: The client may do anything.
        name: What the client calls itself.
        queue: The words of the commands behind MULTI; None: there was none.
        spoilt: A command behind MULTI was wrong.
        subscribed: How many subscriptions the connection has; such a one stays in its worker.
    """

    version: int
    authenticated: bool
    name: str
    queue: list[list[bytes]] | None
    spoilt: bool
    subscribed: int
    max_request_bytes: int
    redis_version: str
    authenticate: Callable[[str, str], bool] | None

    def start(self) -> None:
        """Set up the state of a new connection."""
        super().start()
        self._left = 0  # words of the request that are still to come
        self._args: list[bytes] = []
        self._size = -1  # of the word that comes next; -1: not known yet
        self._taken = 0  # bytes of the request so far
        # A whole request of this length breaks none of the limits.
        self._most_whole = min(
            self.limits.max_body_bytes, self.max_request_bytes, _UNAUTHENTICATED_BYTES
        )
        self.reset()

    def reset(self) -> None:
        """Be as a connection is at its start; what has arrived stays."""
        self.version = 2
        self.authenticated = False
        self.name = ""
        self.queue = None
        self.spoilt = False
        self.subscribed = 0

    @property
    def at_boundary(self) -> bool:
        """Whether no byte of a further request has arrived."""
        return self._at >= len(self._buffer) and not self._left

    def next_request(self) -> Request | Bad | None:
        """Return the next complete request, a Bad in its place, or None: more bytes are needed."""
        while True:
            if self._needed and not self._join_block():
                return None
            if not self._left:
                if self._at >= len(self._buffer):
                    return None
                if self._buffer[self._at] != _ARRAY:
                    found = self._inline()
                elif request := self._whole():
                    return request
                else:
                    found = self._count()
                if found is not _AGAIN:
                    return found
                continue
            return self._words()

    def eof(self) -> Bad | None:
        """Return None: Redis says nothing to a client that leaves inside a request."""
        return None

    @property
    def is_replaceable(self) -> bool:
        """Whether this is in its initial state, so that a new object could replace it."""
        learnt = self.version != 2 or self.authenticated or self.name or self.queue is not None
        return self.at_boundary and not learnt and not self.subscribed

    def dump(self) -> bytes:
        """Return all state: what the connection remembers, and what has arrived."""
        state: dict[str, Any] = {
            "resp": self.version,
            "authenticated": self.authenticated,
            "name": self.name,
            "queue": _shown(self.queue),
            "spoilt": self.spoilt,
            "left": self._left,
            "args": _shown([self._args]) if self._args else None,
            "size": self._size,
            "taken": self._taken,
        }
        head = json.dumps(
            {name: value for name, value in state.items() if value or value == []}
        ).encode()
        return b"%c%b\n%b" % (_VERSION, head, self._unread())

    def load(self, blob: bytes) -> None:
        """Take over the state of a ``dump``."""
        if not blob or blob[0] != _VERSION:
            raise ValueError("not a dump of this version of RESP")
        self.start()
        head, _, self._buffer = blob[1:].partition(b"\n")
        state = json.loads(head)
        self.version = state["resp"]
        self.authenticated = state.get("authenticated", False)
        self.name = state.get("name", "")
        self.queue = _read(state["queue"]) if "queue" in state else None
        self.spoilt = state.get("spoilt", False)
        self._left = state.get("left", 0)
        self._args = (_read(state.get("args", [])) or [[]])[0]
        self._size = state.get("size", 0)
        self._taken = state.get("taken", 0)

    @property
    def may_do_little(self) -> bool:
        """Whether the client has yet to say its password."""
        return False

    def request(self, args: list[bytes]) -> Request:
        """Return the request that some words make."""
        verb = args[0]
        name = verb.upper()
        command = self.commands.get(name, self.unknown)
        line = b" ".join(args)
        if len(line) > _SHOWN_BYTES or name in _SECRET:
            shown = args[: 1 if name in _SECRET else _SHOWN_WORDS]
            line = b" ".join([arg[:_SHOWN_BYTES] for arg in shown])
        return Request(verb, args[1:], command, None, b"\r\n", line)

    def _take(self, args: list[bytes]) -> Request | Bad:
        """Return the request of words that have come from the client."""
        if args[0].upper() in _STRANGERS:
            self._forget()
            return Bad(b"", close=True, why="HTTP")
        return self.request(args)

    def _whole(self) -> Request | Bad | None:
        """Return a request of a few short words if all of it is here and nothing is wrong with it."""
        buffer, at = self._buffer, self._at
        pattern = _WHOLE.get(buffer[at + 1]) if len(buffer) - at > 1 else None
        match = pattern.match(buffer, at) if pattern else None
        if match is None or match.end() - at > self._most_whole:
            return None
        found = match.groups()
        args = list(found[1::2])
        if [*map(int, found[::2])] != [*map(len, args)]:
            return None
        self._at = match.end()
        return self._take(args)

    def _inline(self) -> Request | Bad | None:
        """Read an inline command."""
        end = self._buffer.find(b"\n", self._at)
        if end < 0:
            if len(self._buffer) - self._at > _INLINE:
                return self._lost("too big inline request")
            return None
        line = self._buffer[self._at : end]
        if len(line) > _INLINE:
            return self._lost("too big inline request")
        self._at = end + 1
        args = split(line.removesuffix(b"\r"))
        if args is None:
            return self._lost("unbalanced quotes in request")
        if not args:
            return cast("Request", _AGAIN)
        return self._take(args)

    def _count(self) -> Request | Bad | None:
        """Read how many words a request has."""
        line = self._line("too big mbulk count string")
        if not isinstance(line, bytes):
            return line
        count = number(line[1:])
        if count is None or count > _MOST_WORDS:
            return self._lost("invalid multibulk length")
        if count > _UNAUTHENTICATED_WORDS and self.may_do_little:
            return self._lost("unauthenticated multibulk length")
        self._left = max(0, count)
        self._args = []
        self._taken = 0
        self._size = -1
        return cast("Request", _AGAIN)

    def _words(self) -> Request | Bad | None:
        """Read the words of a request."""
        args = self._args
        while self._left:
            if self._size < 0:
                bad = self._length()
                if self._size < 0:
                    return bad
            stop = self._at + self._size
            if len(self._buffer) < stop + 2:
                self._needed = self._size + 2
                return None
            args.append(self._buffer[self._at : stop])
            self._at = stop + 2
            self._size = -1
            self._left -= 1
        self._args = []
        return self._take(args)

    def _length(self) -> Bad | None:
        """Read the length of a word into ``_size``; leave that alone if it is not here, or wrong."""
        line = self._line("too big bulk count string")
        if not isinstance(line, bytes):
            return line
        if not line.startswith(b"$"):
            got = line[:1].decode("latin-1") or "\r"
            return self._lost(f"expected '$', got '{got}'")
        size = number(line[1:])
        if size is None or not 0 <= size <= self.limits.max_body_bytes:
            return self._lost("invalid bulk length")
        if size > _UNAUTHENTICATED_BYTES and self.may_do_little:
            return self._lost("unauthenticated bulk length")
        self._taken += size
        if self._taken > self.max_request_bytes:
            return self._lost("too big request")
        self._size = size
        return None

    def _line(self, too_long: str) -> bytes | Bad | None:
        """Return a line of the frame without its ending."""
        end = self._buffer.find(b"\r", self._at, self._at + _INLINE + 1)
        if end < 0:
            if len(self._buffer) - self._at > _INLINE:
                return self._lost(too_long)
            return None
        if len(self._buffer) < end + 2:
            return None
        line = self._buffer[self._at : end]
        self._at = end + 2
        return line

    def _lost(self, text: str) -> Bad:
        self._forget()
        self._left = 0
        return Bad(encode_error(ClientError(f"Protocol error: {text}")), close=True)


_AGAIN = object()
"""Something was read that is no request: read on."""
_QUOTED = re.compile(rb'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_SINGLE = re.compile(rb"'((?:[^'\\]|\\.)*)'", re.DOTALL)
_BARE = re.compile(rb"[^ \t\n\v\f\r\0\"']+")
_BLANKS = b" \t\n\v\f\r\0"
_ESCAPE = re.compile(rb"\\(?:x([0-9a-fA-F]{2})|(.))", re.DOTALL)
_ESCAPED = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"a": b"\a", b"b": b"\b"}


def split(line: bytes) -> list[bytes] | None:
    """Return the words of an inline command, or None: a quote does not close, or a word goes on."""
    words: list[bytes] = []
    at = 0
    while True:
        while at < len(line) and line[at] in _BLANKS:
            at += 1
        if at == len(line):
            return words
        word = b""
        while at < len(line) and line[at] not in _BLANKS:
            if line[at : at + 1] in (b'"', b"'"):
                pattern = _QUOTED if line[at : at + 1] == b'"' else _SINGLE
                match = pattern.match(line, at)
                if match is None or line[match.end() : match.end() + 1].strip(_BLANKS):
                    return None
                if pattern is _QUOTED:
                    word += _ESCAPE.sub(_unescaped, match[1])
                else:
                    word += match[1].replace(b"\\'", b"'")
            else:
                match = _BARE.match(line, at)
                assert match is not None
                word += match[0]
            at = match.end()
        words.append(word)


def _unescaped(match: re.Match[bytes]) -> bytes:
    if match[1] is not None:
        return bytes([int(match[1], 16)])
    return _ESCAPED.get(match[2], match[2])


def number(text: bytes) -> int | None:
    """Return a whole number as Redis' string2ll reads it, or None."""
    value = int(text) if _INT.match(text) else None
    return value if value is not None and -(2**63) <= value < 2**63 else None


def _shown(lists: list[list[bytes]] | None) -> list[list[str]] | None:
    if lists is None:
        return None
    return [[word.decode("latin-1") for word in words] for words in lists]


def _read(lists: list[list[str]]) -> list[list[bytes]]:
    return [[word.encode("latin-1") for word in words] for words in lists]
