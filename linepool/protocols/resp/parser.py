r"""Requests in RESP: arrays of bulk strings, and inline commands.

The rules, limits and error texts are those of Redis (networking.c of Redis 7.0):

- A request is ``*<count>\r\n`` followed by ``count`` times ``$<length>\r\n<bytes>\r\n``; or a line of
  words, ended by LF, quoted as in redis-cli. ``*0``, ``*-1`` and an empty line are ignored.
- Bytes that break these rules get an error, and the connection closes.
- Before it has authenticated, a client may send at most 10 words of 16 KiB per request.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import chain
from typing import Any

from linepool.errors import ClientError
from linepool.protocols.base import SKIPPED, Bad, Command, Request
from linepool.protocols.buffered import Buffered
from linepool.protocols.resp.facts import CommandFacts
from linepool.protocols.resp.values import encode_error
from linepool.protocols.text import dump_with_head, load_with_head, unquote

_MAX_LINE_BYTES = 65536  # of an inline command, or of a count or length
_ARRAY = ord("*")
_MAX_WORDS = 1024 * 1024
_UNAUTHENTICATED_WORDS = 10
_UNAUTHENTICATED_BYTES = 16384
_LOGGED_WORDS = 4  # of a request
_LOGGED_BYTES = 64  # of a word
_SECRET = {b"AUTH", b"HELLO", b"CONFIG"}
_INT = re.compile(rb"(?:0|-?[1-9][0-9]{0,18})\Z")
_WORD = rb"\$(0|[1-9][0-9]{0,3})\r\n([^\r]*)\r\n"
# Complete requests of a few short words, as most are, by what follows the asterisk: one match takes a
# sixth of the time of reading word by word.
_SHORT_REQUESTS = {
    (b"%d\r" % count)[:2]: re.compile(rb"\*%d\r\n" % count + count * _WORD)
    for count in range(1, 16)
}
_VERSION = 0x51
ON, OFF, SKIP_NEXT = range(3)


class RespParser(Buffered):
    """Cuts the stream into requests and holds the state of the connection; ``Resp`` adds replies.

    Attributes:
        version: The version of the protocol, 2 or 3.
        name: The name that the client gave itself.
        queue: The commands queued since MULTI, as words; None: no transaction is open.
        queue_bytes: The length of these words together.
        queue_failed: A command since MULTI could not be queued, so EXEC will fail.
        subscribed: How many subscriptions the connection has; with any, it stays in its worker.
        mute: Replies are not sent: OFF, or SKIP_NEXT for those of the next request; ON: they are.
        containers: The commands that have subcommands, with the names of these.
        facts: What COMMAND says of commands beside their own options.
        short_limit_bytes: A short request up to this length breaks none of the limits.
    """

    version: int
    name: str
    queue: list[list[bytes]] | None
    queue_bytes: int
    queue_failed: bool
    subscribed: int
    mute: int
    max_request_bytes: int
    redis_version: str
    containers: Mapping[bytes, tuple[str, ...]] = {}
    facts: Mapping[str, CommandFacts] = {}

    def start(self) -> None:
        """Set up the state of a new connection."""
        super().start()
        self._words_left = 0  # of the request that is being read
        self._args: list[bytes] = []  # its words so far
        self._size = -1  # of its next word; -1: not known yet
        self._request_bytes = 0  # announced by its words so far
        self.short_limit_bytes = min(
            self.limits.max_body_bytes, self.max_request_bytes, _UNAUTHENTICATED_BYTES
        )
        self.reset()

    def reset(self) -> None:
        """Return to the state of a new connection; bytes that have arrived stay."""
        self.version = 2
        self.name = ""
        self.queue = None
        self.queue_bytes = 0
        self.queue_failed = False
        self.subscribed = 0
        self.mute = ON

    @property
    def at_boundary(self) -> bool:
        """Whether no byte of a further request has arrived."""
        return self._at >= len(self._buffer) and not self._words_left

    def next_request(self) -> Request | Bad | None:
        """Return the next complete request, a Bad in its place, or None: more bytes are needed."""
        if self._needed and not self._join_block():
            return None
        if not self._words_left:
            if self._at >= len(self._buffer):
                return None
            if self._buffer[self._at] != _ARRAY:
                return self._inline()
            if request := self._short_request():
                return request
            if (bad := self._count()) or not self._words_left:
                return bad
        return self._long_request()

    def take_unread(self) -> bytes | None:
        """Return what has arrived of the next request, and forget it; None: it must be read here."""
        return None if self._words_left else super().take_unread()

    def eof(self) -> Bad | None:
        """Return None: Redis sends no error to a client that leaves inside a request."""
        return None

    @property
    def in_transaction(self) -> bool:
        """Whether commands are queued since MULTI."""
        return self.queue is not None

    @property
    def is_replaceable(self) -> bool:
        """Whether this is in its initial state, so that a new object could replace it."""
        changed = self.version != 2 or self.name or self.queue is not None
        return self.at_boundary and not changed and not self.subscribed and not self.mute

    def dump(self) -> bytes:
        """Return all state: that of the connection, and the bytes that have arrived."""
        state: dict[str, Any] = {
            "resp": self.version,
            "name": self.name,
            "queue": self.queue if self.queue is None else [_sizes(words) for words in self.queue],
            "queue_failed": self.queue_failed,
            "left": self._words_left,
            "args": _sizes(self._args),
            "size": self._size,
            "taken": self._request_bytes,
        }
        if self.mute:
            state["mute"] = self.mute
        queued = chain.from_iterable(self.queue or ())
        return dump_with_head(_VERSION, state, *queued, *self._args, self._unread())

    def load(self, blob: bytes) -> None:
        """Take over the state of a ``dump``."""
        state, rest = load_with_head(blob, _VERSION, "RESP")
        self.start()
        at = 0

        def take(sizes: list[int]) -> list[bytes]:
            nonlocal at
            words = []
            for size in sizes:
                words.append(rest[at : at + size])
                at += size
            return words

        self.version = state["resp"]
        self.name = state.get("name", "")
        self.queue = [take(sizes) for sizes in state["queue"]] if "queue" in state else None
        self.queue_bytes = at
        self.queue_failed = state.get("queue_failed", False)
        self._words_left = state.get("left", 0)
        self._args = take(state.get("args", []))
        self._buffer = rest[at:]
        self._size = state.get("size", 0)
        self._request_bytes = state.get("taken", 0)
        self.mute = state.get("mute", ON)

    def request(self, args: list[bytes]) -> Request:
        """Return the request with these words, the command's name first."""
        verb = args[0]
        words = args[1:]
        name = verb.upper()
        command = self.commands.get(name)
        if command is None:
            verb, words, command = self._within(args, name)
            args = [verb, *words]
        line = b" ".join(args)
        if len(line) > _LOGGED_BYTES or name in _SECRET:
            logged = args[: 1 if name in _SECRET else _LOGGED_WORDS]
            line = b" ".join([arg[:_LOGGED_BYTES] for arg in logged])
        return Request(verb, words, command, None, b"\r\n", line)

    def _within(self, args: list[bytes], name: bytes) -> tuple[bytes, list[bytes], Command | None]:
        """Return the verb, the words and the command of a request whose command is not in the table.

        It may be one that has subcommands, which are in the table as ``CLIENT|KILL``; the verb has both
        names then. HELP is the same for all of them.
        """
        if name in self.containers:
            sub = args[1] if len(args) > 1 else b""
            command = self.commands.get(b"%b|%b" % (name, sub.upper()))
            if command is None and sub.upper() == b"HELP":
                command = self.commands.get(b"COMMAND|HELP")
            if command is not None:
                return b"%b|%b" % (args[0], sub), args[2:], command
        return args[0], args[1:], self.unknown

    def _short_request(self) -> Request | Bad | None:
        """Return a request of a few short words, or None if it is incomplete or needs other checks."""
        buffer, at = self._buffer, self._at
        pattern = _SHORT_REQUESTS.get(buffer[at + 1 : at + 3])
        match = pattern.match(buffer, at) if pattern else None
        if match is None or match.end() - at > self.short_limit_bytes:
            return None
        found = match.groups()
        args = list(found[1::2])
        if len(args) > _UNAUTHENTICATED_WORDS and self.is_locked:
            return None
        if [*map(int, found[::2])] != [*map(len, args)]:
            return None
        self._at = match.end()
        return self.request(args)

    def _inline(self) -> Request | Bad | None:
        """Read an inline command."""
        end = self._buffer.find(b"\n", self._at)
        if end < 0:
            if len(self._buffer) - self._at > _MAX_LINE_BYTES:
                return self._lost("too big inline request")
            self._await_line(_MAX_LINE_BYTES + 1)
            return None
        line = self._buffer[self._at : end]
        if len(line) > _MAX_LINE_BYTES:
            return self._lost("too big inline request")
        self._at = end + 1
        args = split(line.removesuffix(b"\r"))
        if args is None:
            return self._lost("unbalanced quotes in request")
        if not args:
            return SKIPPED
        return self.request(args)

    def _count(self) -> Bad | None:
        """Read the number of words of a request into ``_words_left``, unless it is incomplete or wrong."""
        line = self._line("too big mbulk count string")
        if not isinstance(line, bytes):
            return line
        count = parse_int(line[1:])
        if count is None or count > _MAX_WORDS:
            return self._lost("invalid multibulk length")
        if count > _UNAUTHENTICATED_WORDS and self.is_locked:
            return self._lost("unauthenticated multibulk length")
        self._words_left = max(0, count)
        self._args = []
        self._request_bytes = 0
        self._size = -1
        return None if self._words_left else SKIPPED

    def _long_request(self) -> Request | Bad | None:
        """Read the words of a request, one after the other, as far as they have arrived."""
        args = self._args
        while self._words_left:
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
            self._words_left -= 1
        self._args = []
        self._request_bytes = 0
        return self.request(args)

    def _length(self) -> Bad | None:
        """Read the length of the next word into ``_size``, unless it is incomplete or wrong."""
        line = self._line("too big bulk count string")
        if not isinstance(line, bytes):
            return line
        if not line.startswith(b"$"):
            got = line[:1].decode("latin-1") or "\r"
            return self._lost(f"expected '$', got '{got}'")
        size = parse_int(line[1:])
        if size is None or not 0 <= size <= self.limits.max_body_bytes:
            return self._lost("invalid bulk length")
        if size > _UNAUTHENTICATED_BYTES and self.is_locked:
            return self._lost("unauthenticated bulk length")
        self._request_bytes += size
        if self._request_bytes > self.max_request_bytes:
            return self._lost("too big request")
        self._size = size
        return None

    def _line(self, too_long: str) -> bytes | Bad | None:
        """Return a line with a count or a length without its ending."""
        end = self._buffer.find(b"\r", self._at, self._at + _MAX_LINE_BYTES + 1)
        if end < 0:
            if len(self._buffer) - self._at > _MAX_LINE_BYTES:
                return self._lost(too_long)
            return None
        if len(self._buffer) < end + 2:
            return None
        line = self._buffer[self._at : end]
        self._at = end + 2
        return line

    def _lost(self, text: str) -> Bad:
        """Close: where the next request begins is unknown."""
        self._forget()
        self._words_left = 0
        return Bad(encode_error(ClientError(f"Protocol error: {text}")), close=True)


_QUOTED = re.compile(rb""""(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'""", re.DOTALL)
_BARE = re.compile(rb"[^ \t\n\v\f\r\0\"']+")
_BLANKS = b" \t\n\v\f\r\0"


def split(line: bytes) -> list[bytes] | None:
    """Return the words of an inline command, or None: a quote does not close, or text follows it."""
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
                match = _QUOTED.match(line, at)
                if match is None or line[match.end() : match.end() + 1].strip(_BLANKS):
                    return None
                word += unquote(match[0])
            else:
                match = _BARE.match(line, at)
                assert match is not None
                word += match[0]
            at = match.end()
        words.append(word)


def parse_int(text: bytes) -> int | None:
    """Return a 64-bit integer as Redis' string2ll reads it, or None."""
    value = int(text) if _INT.match(text) else None
    return value if value is not None and -(2**63) <= value < 2**63 else None


def _sizes(words: list[bytes]) -> list[int]:
    return [len(word) for word in words]
