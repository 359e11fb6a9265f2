"""The contract between a protocol and whoever moves its bytes.

A protocol object belongs to one connection. It is fed what arrives, gives requests, and turns what
a handler returned into bytes. It never sees a socket, so a test drives it with bytes alone, and
what it holds between two requests can be dumped and loaded in another process.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Self
from typing import Protocol as Interface

from attrs import define, frozen

from linepool.errors import ReplyError, SetupError
from linepool.pubsub.messages import Message
from linepool.session import Session


@frozen
class Parameter:
    """One parameter of a handler that its client fills.

    Attributes:
        name: As the handler's author wrote it.
        kind: ``word``, ``many`` (all further words), ``option`` (a word with its value), ``flag`` (a
            word alone), ``rest`` (of the line) or ``body`` (the data block).
        annotation: The type, resolved.
        shown: The type as usage texts show it.
        required: Whether it may not be left out.
        default: What it is when it is left out; None if it is required.
    """

    name: str
    kind: str
    annotation: Any
    shown: str
    required: bool
    default: Any = None


class Command(Interface):
    """What a protocol may know of a command: to find the end of its requests, and to describe it."""

    @property
    def names(self) -> Sequence[str]:
        """The name and its aliases: in upper case, if the protocol ignores case."""

    @property
    def doc(self) -> str:
        """The handler's docstring, without indentation."""

    @property
    def usage(self) -> str:
        """The command with its words, in one line."""

    @property
    def options(self) -> Mapping[str, Any]:
        """What ``handler(..., name=value)`` said to the protocol."""

    @property
    def parameters(self) -> Sequence[Parameter]:
        """What the client fills, in the order of the signature."""

    @property
    def returns(self) -> Any:
        """The annotation of what the handler returns; None if there is none."""

    @property
    def rest_after(self) -> int | None:
        """How many words stand before the rest of the line; None: the line is words only."""

    @property
    def size_word(self) -> int | None:
        """Which word (0 is the first after the command) gives the size of a data block."""

    @property
    def body(self) -> str | None:
        """The parameter that takes the data block, or None: the command has none."""


Builtin = tuple[tuple[str, ...], Callable[..., Any]]
"""The names of a command that a protocol brings along, and its handler."""


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
        values: The arguments where the protocol has types of its own (JSON), by position or by name,
            in place of ``words``.
    """

    verb: bytes
    words: list[bytes]
    command: Any = None
    body: bytes | None = None
    eol: bytes = b"\r\n"
    line: bytes = b""
    values: list[Any] | dict[str, Any] | None = None


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


class Call(Interface):
    """Runs the handler of a request; see ``Protocol.around``."""

    def __call__(self, request: Request, *, whole: bool = False) -> Any:
        """Return the handler's value, or the ReplyError."""


class Protocol(ABC):
    """The base of every protocol.

    An object made by the user (``App(protocol=Line())``) is a pattern that holds options;
    ``open`` makes the object for one connection from it.
    """

    ignores_case: ClassVar[bool] = True
    """Whether the case of a command's name does not count; then the table has it in upper case."""
    typed: ClassVar[bool] = False
    """Whether arguments come as values with types (``Request.values``), not as words."""
    options: ClassVar[Mapping[str, str]] = {}
    """What ``handler(..., name=value)`` may say to the protocol: names, and what each is for."""
    publishes: ClassVar[bool] = False
    """Whether connections may subscribe to what others publish."""
    converters: ClassVar[Mapping[Any, Callable[[bytes], Any]]] = {}
    """Its own ways from a word to a value, by annotation; each raises ValueError (what it must be)."""
    supplies: ClassVar[Mapping[Any, Callable[[Request, Any], object]]] = {}
    """More that a handler is handed by annotation: from the request and the conversation."""

    commands: Mapping[bytes, Command]
    unknown: Command | None
    limits: Limits

    def builtins(self) -> Iterable[Builtin]:
        """Return the commands that an app has unless it says no or has its own of that name.

        Their handlers are as a user's; one that needs the connection's protocol object asks for it
        by annotating a parameter with the protocol's class.
        """
        return ()

    def check(self, commands: Iterable[Command]) -> None:
        """Look at all commands once, before anything is served.

        Raises:
            SetupError: A command cannot be served in this protocol; the text names it.
        """
        for command in commands:
            if command.body is not None and command.size_word is None:
                raise SetupError(
                    f"command {command.names[0]}: body() must name the parameter with the size;"
                    f" {type(self).__name__} has no other end of a data block"
                )

    def around(self, request: Request, session: Session, call: Call) -> Any:
        """Answer one request; to be overridden where more happens than one call of its handler.

        Args:
            request: The request, or what holds several (a batch).
            session: What the connection remembers.
            call: Runs the handler of a request, the middleware around it, and returns its value, or
                the ReplyError if it could not; ``call(request, whole=True)`` returns a stream as a
                list.

        Returns:
            What is to be encoded: a value, a Reply, or a ReplyError.
        """
        return call(request)

    def is_plain(self, request: Request) -> bool:
        """Whether ``around`` would do no more for a request than call its handler: it is left out then."""
        return False

    def open(
        self, commands: Mapping[bytes, Command], limits: Limits, unknown: Command | None = None
    ) -> Self:
        """Return a protocol for one new connection.

        Args:
            commands: The command table, by name (in upper case, if case is ignored).
            limits: The sizes beyond which a request is refused.
            unknown: The entry for commands that are not in the table.
        """
        # As copy.copy() does it, in a tenth of the time, and without making a dict of the attributes:
        # they can be read twice as fast as long as nobody has asked for their dict.
        fresh = object.__new__(type(self))
        for name, value in self.__dict__.items():
            setattr(fresh, name, value)
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

    def encode_message(self, message: Message) -> bytes:
        """Return what a subscriber is sent."""
        return self.encode(message.data, Request(b"", []))

    def encode_stream(self, items: Iterator[object], request: Request) -> Iterator[bytes]:
        """Yield the parts of a reply as a generator handler yields its items."""
        yield self.encode(list(items), request)

    @abstractmethod
    def encode_error(self, error: ReplyError, request: Request | None) -> bytes:
        """Return the error reply; ``request`` is None when none was complete."""

    def greeting(self) -> bytes:
        """Return what the server says first, before any request."""
        return b""

    @property
    def is_replaceable(self) -> bool:
        """Whether a new object could take its place now: nothing has been learnt that counts.

        Then the connection can be saved from a worker that is killed while it serves another one.
        """
        return False

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
