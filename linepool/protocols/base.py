"""The contract between a protocol and the connection that moves its bytes.

A protocol object belongs to one connection. It is fed the bytes that arrive, returns requests, and
turns what a handler returned into bytes. It never sees a socket, so a test drives it with bytes
alone, and its state between two requests can be dumped and loaded in another process.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import count
from typing import Any, ClassVar, Self
from typing import Protocol as Interface

from attrs import define, field, frozen

from linepool.errors import ClientError, ReplyError, SetupError
from linepool.protocols.shapes import Shape, shape_of
from linepool.pubsub.messages import Message
from linepool.session import Session
from linepool.waiting import FIRST_RUN, Waited


@frozen
class Parameter:
    """One parameter of a handler that the client fills.

    Attributes:
        name: As in the handler's signature.
        kind: ``word``, ``many`` (all further words), ``option`` (a word with its value), ``flag`` (a
            word alone), ``rest`` (of the line), ``json`` (the rest of the line, as JSON) or ``body`` (the
            data block).
        annotation: The type, resolved.
        shown: The type as usage texts show it.
        required: The client must give it.
        default: Its value when the client leaves it out; None if it is required, or secret.
        is_secret: Its values are not shown.
    """

    name: str
    kind: str
    annotation: Any
    shown: str
    required: bool
    default: Any = None
    is_secret: bool = False


class Command(Interface):
    """What a protocol knows of a command: enough to find the end of its requests and to describe it."""

    @property
    def names(self) -> Sequence[str]:
        """The name and its aliases; in upper case if the protocol ignores case."""

    @property
    def doc(self) -> str:
        """The handler's docstring, without indentation."""

    @property
    def usage(self) -> str:
        """The command with its parameters, in one line."""

    @property
    def is_builtin(self) -> bool:
        """Whether it is one of the protocol's own commands."""

    @property
    def is_idempotent(self) -> bool:
        """Whether to run it twice does no more than to run it once."""

    @property
    def is_public(self) -> bool:
        """Whether clients may use it before they have logged in."""

    @property
    def timeout(self) -> float | None:
        """Seconds after which a request is overdue; None: as the server is set."""

    @property
    def options(self) -> Mapping[str, Any]:
        """The protocol's options that ``handler(..., name=value)`` set."""

    @property
    def parameters(self) -> Sequence[Parameter]:
        """The parameters that the client fills, in the order of the signature."""

    @property
    def returns(self) -> Any:
        """The handler's return annotation, or None."""

    @property
    def rest_after(self) -> int | None:
        """How many words come before the rest of the line; None: the line is words only."""

    @property
    def size_word(self) -> int | None:
        """Which word (0 is the first after the command) is the size of a data block, or None."""

    @property
    def body(self) -> str | None:
        """The parameter that takes the data block, or None."""


Builtin = (
    tuple[tuple[str, ...], Callable[..., Any]]
    | tuple[tuple[str, ...], Callable[..., Any], Mapping[str, Any]]
)
"""The names of a built-in command of a protocol, its handler, and the protocol's options for it, if any."""


_numbers = count()


@define
class Request:
    """One request, cut out of the stream but not yet converted.

    Attributes:
        verb: The command's name as the client wrote it.
        words: The words after it, quotes removed. For a command that takes the rest of the line,
            the last word is that rest, blanks kept.
        command: The entry of the command table that was given to ``open``, or None: unknown.
        body: The data block without its line ending, or None: the command has none.
        eol: The line ending that the client used, for the reply.
        line: The request's line without its ending, for logs.
        values: In a typed protocol (JSON), the arguments by position or by name; they replace
            ``words``.
    """

    most_ns: ClassVar[int] = 0
    """How long its client waits for the reply, in ns; 0: it has not said."""

    verb: bytes
    words: list[bytes]
    command: Any = None
    body: bytes | None = None
    eol: bytes = b"\r\n"
    line: bytes = b""
    values: list[Any] | dict[str, Any] | None = None
    _id: str = field(init=False, eq=False, repr=False)  # unset until it is asked for
    _waited: Waited = field(init=False, eq=False, repr=False)  # unset unless it has waited

    @staticmethod
    def new_id() -> str:
        """Return an id for a request; the service sets a function that makes unique ones."""
        return f"{next(_numbers):012x}"

    @property
    def waited(self) -> Waited:
        """What is known of earlier runs of its handler."""
        try:
            return self._waited
        except AttributeError:
            return FIRST_RUN

    @waited.setter
    def waited(self, waited: Waited) -> None:
        self._waited = waited

    @property
    def id(self) -> str:
        """Its id in error replies, in the log and in the access log, made when something asks for it."""
        return self.identified(self.new_id)

    def identified(self, make: Callable[[], str]) -> str:
        """Return the id; if none was made yet, it is what ``make`` returns."""
        try:
            return self._id
        except AttributeError:
            self._id = made = make()
            return made


@frozen
class Bad:
    """Bytes that are not a request.

    Attributes:
        reply: The bytes to send, with their line ending; may be empty.
        close: Where the next request begins is unknown: send the reply and close.
        why: The reason to log; empty: log nothing.
    """

    reply: bytes
    close: bool
    why: str = ""


SKIPPED = Bad(b"", close=False)
"""For a line that is neither a request nor an error, such as an empty one."""


@frozen
class Limits:
    """The limits of one request, in bytes. The line's ending does not count."""

    max_line_bytes: int = 8192
    max_body_bytes: int = 1024 * 1024

    @property
    def before_login(self) -> Limits:
        """The limits of a client that has yet to log in."""
        return Limits(min(self.max_line_bytes, 4096), min(self.max_body_bytes, 16384))


class Call(Interface):
    """Runs the handler of a request; see ``Protocol.around``."""

    def __call__(self, request: Request, *, whole: bool = False) -> Any:
        """Return the handler's value, or the ReplyError; ``whole``: a stream as a list."""


class Protocol(ABC):
    """The base of every protocol.

    An object made by the user (``App(protocol=Line())``) is a template that holds options;
    ``open`` makes the object for one connection from it.
    """

    ignores_case: ClassVar[bool] = True
    """Whether command names ignore case; then the command table has them in upper case."""
    typed: ClassVar[bool] = False
    """Whether arguments come as values with types (``Request.values``), not as words."""
    takes_json: ClassVar[bool] = False
    """Whether requests of words may hold JSON: ``Request.values``, or text as the rest of the line, for a
    last parameter whose type is made of others (kind ``json``)."""
    options: ClassVar[Mapping[str, str]] = {}
    """The options that ``handler(..., name=value)`` may set: the names, and what each is for."""
    publishes: ClassVar[bool] = False
    """Whether connections may subscribe to channels."""
    can_wait: ClassVar[bool] = False
    """Whether requests may wait: there is a ``take_back``."""
    converters: ClassVar[Mapping[Any, Callable[[bytes], Any]]] = {}
    """Converters of words that replace the usual ones, by annotation; each raises ValueError with what
    the word must be."""
    supplies: ClassVar[Mapping[Any, Callable[[Request, Any], object]]] = {}
    """Further values to inject into handlers, by annotation, from the request and the conversation."""

    public_builtins: ClassVar[frozenset[str]] = frozenset()
    """The built-in commands that clients may use before they have logged in."""
    authenticator: Callable[[str, str], bool] | None = None
    """What clients log in by, if the protocol is given it: then it replaces the app's function."""

    is_locked = False
    """Whether the client has yet to log in."""
    line_end: bytes = b""
    """What ends a request, where that is the end of a line of text: ``App.ask`` adds it if it is left out."""

    commands: Mapping[bytes, Command]
    unknown: Command | None
    limits: Limits

    @property
    def in_transaction(self) -> bool:
        """Whether what has been sent runs with what is to come: the connection does not end for its age."""
        return False

    def builtins(self) -> Iterable[Builtin]:
        """Return the commands that an app has by default; its own of the same name replace them.

        Their handlers are like a user's; a parameter annotated with the protocol's class gets the
        connection's protocol object.
        """
        return ()

    def login_builtins(self) -> Iterable[Builtin]:
        """Return the commands that log in, for an app whose clients have to; otherwise as ``builtins``."""
        return ()

    def lock(self, limits: Limits, *, is_locked: bool) -> None:
        """Note whether the client has yet to log in; then its requests have smaller limits.

        Args:
            limits: Those of a client that has logged in.
            is_locked: It has yet to.
        """
        self.is_locked = is_locked
        self.limits = limits.before_login if is_locked else limits

    def locked_error(self, request: Request | None) -> ReplyError:
        """Return the error for a request that may not be run before the client has logged in."""
        return ClientError("authentication required")

    def login_error(self) -> ReplyError:
        """Return the error for a log-in with a wrong password."""
        return ClientError("authentication failed")

    def check(self, commands: Iterable[Command]) -> None:
        """Check all commands once, before the server starts.

        Raises:
            SetupError: This protocol cannot serve a command; the text names it.
        """
        for command in commands:
            if command.body is not None and command.size_word is None:
                raise SetupError(
                    f"command {command.names[0]}: body() must name the parameter with the size;"
                    f" {type(self).__name__} has no other way to find the end of a data block"
                )

    def shape(self, command: Command) -> Shape:
        """Return how the replies of a command are laid out, as its return annotation says."""
        return shape_of(command.returns)

    def around(self, request: Request, session: Session, call: Call) -> Any:
        """Answer one request; override it where this takes more than one call of the handler.

        Args:
            request: The request, or an object that holds several (a batch).
            session: The connection's session.
            call: Runs the handler of a request with the middleware around it, and returns its value
                or the ReplyError; ``call(request, whole=True)`` returns a stream as a list.

        Returns:
            The value to encode, a Reply, or a ReplyError.
        """
        return call(request)

    def is_plain(self, request: Request) -> bool:
        """Whether ``around`` would only call the handler of a request; then it is skipped."""
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
        # Like copy.copy(), in a tenth of the time, and without creating the new object's __dict__:
        # until something asks for that dict, attributes are read twice as fast.
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
        """Take bytes from the client, cut anywhere."""

    @abstractmethod
    def next_request(self) -> Request | Bad | None:
        """Return the next complete request, a Bad in its place, or None: more bytes are needed.

        Never raises: requests that came before malformed bytes get their replies first. Never reads on
        behind a line that is not a request, but returns ``SKIPPED``: so the connection's turn can end.
        """

    overtakes = False
    """Whether the requests behind one that waits are answered meanwhile; then there is a ``raw``."""

    def take_back(self, request: Request) -> None:
        """Put the request that ``next_request`` has returned last in front of what has arrived.

        It is returned once more, here or in another process, when its handler is to be run again. Only
        called if ``can_wait``.
        """
        raise NotImplementedError

    def raw(self, request: Request) -> bytes:
        """Return the bytes of a request, for ``put_back``. Only called if ``overtakes``."""
        raise NotImplementedError

    def put_back(self, data: bytes) -> None:
        """Put the bytes of a whole request in front of what has arrived. Only called if ``overtakes``."""
        raise NotImplementedError

    @abstractmethod
    def eof(self) -> Bad | None:
        """Return the error for a client that ended its stream inside a request."""

    @property
    @abstractmethod
    def at_boundary(self) -> bool:
        """Whether no byte of a further request has arrived."""

    @abstractmethod
    def encode(self, value: object, request: Request) -> bytes:
        """Return the reply for what a handler returned, with its line endings.

        Raises:
            TypeError: The protocol cannot send a value of this type.
            ValueError: The value would break the framing (a line break in a one-line reply).
        """

    def encode_raw(self, data: bytes, request: Request) -> bytes:
        """Return the bytes of a ``Reply(raw=...)``; raises as ``encode`` if they cannot be the reply."""
        del request
        return data

    def encode_push(self, value: object, request: Request) -> bytes:
        """Return what is sent ahead of the reply to a request; raises as ``encode``."""
        return self.encode(value, request)

    def encode_message(self, message: Message) -> bytes:
        """Return the bytes that a subscriber is sent."""
        return self.encode(message.data, Request(b"", []))

    def encode_stream(self, items: Iterator[object], request: Request) -> Iterator[bytes]:
        """Yield the parts of a reply while a generator handler yields its items."""
        yield self.encode(list(items), request)

    @abstractmethod
    def encode_error(self, error: ReplyError, request: Request | None) -> bytes:
        """Return the error reply; ``request`` is None if no request was complete."""

    def greeting(self) -> bytes:
        """Return the bytes that the server sends before any request."""
        return b""

    def command_in(self, line: bytes) -> bytes:
        """Return the command's name in a request's ``line``, which may be cut; for logs."""
        return line.split(None, 1)[0] if line.strip() else b""

    @property
    def unread_bytes(self) -> int | None:
        """How many bytes have arrived and belong to no request yet; None: the protocol does not say it."""
        return None

    @property
    def is_replaceable(self) -> bool:
        """Whether this is in its initial state, so that a new object could replace it.

        Then the connection can be saved from a worker that is killed while it serves another one.
        """
        return False

    @abstractmethod
    def dump(self) -> bytes:
        """Return all state between two calls of ``next_request``, for ``load`` elsewhere."""

    @abstractmethod
    def load(self, blob: bytes) -> None:
        """Take over the state of a ``dump``.

        Raises:
            ValueError: The blob is from another protocol or version.
        """


def printable(data: bytes, limit: int = 64) -> str:
    r"""Return a client's bytes as one line of ASCII, others as ``\xHH``, cut at ``limit`` bytes."""
    text = data[:limit].decode("latin-1").replace("\\", "\\\\")
    shown = "".join(c if " " <= c <= "~" else f"\\x{ord(c):02x}" for c in text)
    return shown if len(data) <= limit else shown + "..."
