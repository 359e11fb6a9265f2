"""The contract between a protocol and whoever moves its bytes.

A protocol object belongs to one connection. It is fed what arrives, gives requests, and turns what
a handler returned into bytes. It never sees a socket, so a test drives it with bytes alone, and
what it holds between two requests can be dumped and loaded in another process.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, Self
from typing import Protocol as Interface

from attrs import define, frozen

from linepool.errors import ReplyError


class Command(Interface):
    """What a protocol must know of a command to find the end of its requests."""

    @property
    def rest_after(self) -> int | None:
        """How many words stand before the rest of the line; None: the line is words only."""

    @property
    def size_word(self) -> int | None:
        """Which word (0 is the first after the command) gives the size of a data block."""


@define
class Request:
    """One request, cut out of the stream but not yet converted.

    Attributes:
        verb: The command's name as the client wrote it.
        words: The words behind it, quotes removed. For a command that takes the rest of the line,
            the last of them is that rest, blanks kept.
        command: The entry of the command table that was given to ``open``, or None: unknown.
        body: The data block without its line ending, or None: the command has none.
        eol: The line ending that the client used, for the reply.
        line: The request's line without its ending, for logs.
    """

    verb: bytes
    words: list[bytes]
    command: Any = None
    body: bytes | None = None
    eol: bytes = b"\r\n"
    line: bytes = b""


@frozen
class Bad:
    """Bytes that are no request.

    Attributes:
        reply: What to send, complete with its line ending; may be empty.
        close: The place in the stream is lost: send the reply, close, execute nothing behind it.
        why: For the log, if it is worth a line there.
    """

    reply: bytes
    close: bool
    why: str = ""


@frozen
class Limits:
    """How much one request may hold, in bytes. The line's ending does not count."""

    max_line_bytes: int = 8192
    max_body_bytes: int = 1024 * 1024


class Protocol(ABC):
    """The base of every protocol.

    An object made by the user (``App(protocol=Line())``) is a pattern that holds options;
    ``open`` makes the object for one connection from it.
    """

    commands: Mapping[bytes, Command]
    unknown: Command | None
    limits: Limits

    def open(
        self, commands: Mapping[bytes, Command], limits: Limits, unknown: Command | None = None
    ) -> Self:
        """Return a protocol for one new connection.

        Args:
            commands: The command table, by upper-case name.
            limits: The sizes beyond which a request is refused.
            unknown: The entry for commands that are not in the table.
        """
        fresh = copy.copy(self)
        fresh.commands = commands
        fresh.unknown = unknown
        fresh.limits = limits
        fresh.start()
        return fresh

    @abstractmethod
    def start(self) -> None:
        """Set up the state of a new connection."""

    @abstractmethod
    def feed(self, data: bytes) -> None:
        """Take what the client sent; any cut is possible."""

    @abstractmethod
    def next_request(self) -> Request | Bad | None:
        """Return the next complete request, what is wrong in its place, or None: feed me more.

        Never raises: requests that came before a wrong one get their replies first.
        """

    @abstractmethod
    def eof(self) -> Bad | None:
        """Return what to say to a client that ended its stream inside a request."""

    @property
    @abstractmethod
    def at_boundary(self) -> bool:
        """Whether nothing of a further request has arrived."""

    @abstractmethod
    def encode(self, value: object, request: Request) -> bytes:
        """Return the reply for what a handler returned, complete with its line endings.

        Raises:
            TypeError: No reply is defined for such a value.
            ValueError: The value would break the framing (a line break in a one-line reply).
        """

    def encode_stream(self, items: Iterator[object], request: Request) -> Iterator[bytes]:
        """Yield the parts of a reply as a generator handler yields its items."""
        yield self.encode(list(items), request)

    @abstractmethod
    def encode_error(self, error: ReplyError, request: Request | None) -> bytes:
        """Return the error reply; ``request`` is None when none was complete."""

    def greeting(self) -> bytes:
        """Return what the server says first, before any request."""
        return b""

    @abstractmethod
    def dump(self) -> bytes:
        """Return all state between two calls of ``next_request``, for ``load`` elsewhere."""

    @abstractmethod
    def load(self, blob: bytes) -> None:
        """Take over the state that ``dump`` gave.

        Raises:
            ValueError: The blob is of another protocol or version.
        """


def printable(data: bytes, limit: int = 64) -> str:
    r"""Return bytes of a client as one line of ASCII: ``\xHH`` for the rest, cut at ``limit`` bytes."""
    text = data[:limit].decode("latin-1").replace("\\", "\\\\")
    shown = "".join(c if " " <= c <= "~" else f"\\x{ord(c):02x}" for c in text)
    return shown if len(data) <= limit else shown + "..."
