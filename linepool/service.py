"""An app made ready to serve: the command table, the hooks, and how a handler is called."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import define, field, frozen

from linepool.errors import ServerError, UsageError
from linepool.faults import new_id
from linepool.handlers.compile import compile_call
from linepool.handlers.signature import Signature, Supply
from linepool.protocols.base import Limits, Protocol, Request, printable
from linepool.protocols.document import Document, described
from linepool.session import Session

Middleware = Callable[[Request, Session, Callable[[Request], Any]], Any]


@frozen
class Hook:
    """A function that the app registered for an event of a connection or a worker."""

    function: Callable[..., Any]
    signature: Signature

    def __call__(self, conversation: Any) -> Any:
        """Call it with what its annotations name."""
        args, kwargs = self.signature.bind(NO_REQUEST, conversation)
        return self.function(*args, **kwargs)


@frozen
class ErrorHook:
    """A function that the app registered for exceptions.

    Attributes:
        takes: The resources that it takes, by parameter.
    """

    function: Callable[..., Any]
    takes: Mapping[str, str]

    def __call__(self, error: BaseException, request: Request | None, conversation: Any) -> None:
        """Call it with an exception; no request: it was raised in a hook, or at the end of a batch."""
        taken = {name: conversation.resources[one] for name, one in self.takes.items()}
        self.function(error, request, conversation.session, **taken)


Authenticate = Callable[[str, str, Any], Any]
"""From a user's name, a password and a conversation to what the app says of them."""

OnError = Callable[[BaseException, Request | None, Any], None]
"""An ``ErrorHook``, or another function that is called as one."""

NO_REQUEST = Request(b"", [])
Request.new_id = staticmethod(new_id)  # type: ignore[method-assign] # the protocols are pure


@define(slots=False)
class Entry:
    """One entry of the command table: what is known of a command.

    Attributes:
        names: The first is shown, the others are aliases; empty for the entry that serves unknown
            commands. In upper case if the protocol ignores case.
        timeout: Seconds after which a request is overdue; None: the setting ``request_timeout``.
        doc: The handler's docstring, without indentation.
        place: ``file:line`` of the handler, for messages.
        options: What the handler's registration says to the protocol: ``handler(..., name=value)``.
        is_builtin: Whether it is one of the protocol's own commands.
        is_idempotent: Whether to run it twice does no more than to run it once.
        is_public: Whether clients may use it before they have logged in.
        waits: Its requests may wait: the handler returns ``Wait``.
        number: Its number among the commands of all apps, from 1; by it the master knows what a worker
            runs.
        app: The name of its app, if that is one of several.
        call: Converts the words of a request and calls the handler.
    """

    names: tuple[str, ...]
    function: Callable[..., Any]
    signature: Signature
    timeout: float | None = None
    doc: str = ""
    place: str = ""
    options: Mapping[str, Any] = {}
    is_builtin: bool = False
    is_idempotent: bool = False
    is_public: bool = False
    waits: bool = False
    number: int = 0
    app: str = ""

    def __attrs_post_init__(self) -> None:
        self.call = compile_call(self.function, self.signature, self._call)
        self.parameters = self.signature.parameters
        self.returns = self.signature.returns
        self.body = self.signature.body
        self.rest_after = self.signature.rest_after
        self.size_word = self.signature.size_word
        self.is_secret = self.signature.has_secrets
        self.limit_ns = None if self.timeout is None else int(self.timeout * 1e9)

    @property
    def name(self) -> str:
        """The command's name, for logs and errors."""
        return self.names[0] if self.names else "(unknown)"

    @property
    def shown(self) -> str:
        """The command's name for log, status and brakes: with that of its app, if there are several."""
        return f"{self.app}:{self.name}" if self.app else self.name

    @property
    def usage(self) -> str:
        """The command with its words, as HELP and usage errors show it."""
        return f"{self.names[0]} {self.signature.usage}".rstrip()

    def _call(self, request: Request, conversation: Any) -> Any:
        """Convert the words and call the handler.

        Raises:
            UsageError: The words do not fit; the text ends with the usage.
        """
        try:
            args, kwargs = self.signature.bind(request, conversation)
        except UsageError as error:
            error.usage = self.usage if self.names else ""
            raise error from None
        return self.function(*args, **kwargs)


class NoEntry:
    """In place of the entry of a request whose command is unknown."""

    limit_ns: int | None = None
    number = 0
    waits = False


NO_ENTRY = NoEntry()


@frozen
class Logged:
    """What the log says of a request.

    Attributes:
        command: The command's name, as the client wrote it, behind that of its app if there are several;
            ``(unknown)`` if the app has no such command.
        words: The same, or the request's line, if that is to be logged.
        entry: The command, or None.
    """

    command: str
    words: str
    entry: Entry | None


@frozen
class Service:
    """An app made ready to serve. It does not change any more, so all workers share it.

    Attributes:
        table: The command table, by name; aliases have entries of their own.
        unknown: Called for a command that is not in the table, or None.
        middleware: From the outermost to the innermost.
        supplies: What returns the values that are injected into middleware.
        on_error: Called for an exception that is not a reply.
        guard: Whether clients of another protocol are refused (``protocols/strangers.py``).
        has_around: Whether the protocol makes one reply of several calls.
        authenticate: What clients log in by; None: they need not.
        log_lines: Whether the log shows the lines of requests, not only their commands.
        greets: Whether there is anything to do for a new client before it has sent a request.
    """

    name: str
    protocol: Protocol
    table: Mapping[bytes, Entry]
    unknown: Entry | None
    middleware: Sequence[Middleware]
    on_connect: Sequence[Hook]
    on_disconnect: Sequence[Hook]
    limits: Limits = Limits()
    guard: bool = True
    on_error: Sequence[OnError] = ()
    authenticate: Authenticate | None = None
    log_lines: bool = False
    supplies: Sequence[Supply] = ()
    has_around: bool = field(init=False)
    greets: bool = field(init=False)

    @has_around.default
    def _has_around(self) -> bool:
        return type(self.protocol).around is not Protocol.around

    @greets.default
    def _greets(self) -> bool:
        return bool(self.on_connect) or type(self.protocol).greeting is not Protocol.greeting

    @property
    def has_waits(self) -> bool:
        """Whether requests may wait."""
        return any(entry.waits for entry in self.entries)

    @functools.cached_property
    def document(self) -> Document:
        """The description of the app's own commands for programs, made when it is first asked for."""
        own = [entry for entry in self.commands if not entry.is_builtin]
        return described(self.name, self.protocol, own, has_login=self.authenticate is not None)

    def open_protocol(self) -> Protocol:
        """Return a protocol for a new connection."""
        return self.protocol.open(self.table, self.limits, self.unknown)

    def refusal(self, why: str) -> bytes:
        """Return the error reply to a client that is not served."""
        return self.error_reply(f"{why}; try again later")

    def error_reply(self, text: str) -> bytes:
        """Return the reply that the server has failed, to a client of whose requests nothing is known."""
        return self.open_protocol().encode_error(ServerError(text), None)

    def find(self, verb: bytes) -> Entry | None:
        """Return the command of a name, or None."""
        return self.table.get(verb.upper() if self.protocol.ignores_case else verb)

    def logged(self, line: bytes) -> Logged:
        """Return what the log says of a request, given its line, or the beginning of it."""
        verb = b""
        with contextlib.suppress(Exception):  # the protocol may be the user's
            verb = self.protocol.command_in(line)
        entry = self.find(verb)
        command = printable(verb) if entry else "(unknown)"
        if entry and entry.app:
            command = f"{entry.app}:{command}"
        serves = entry or self.unknown
        shows_line = self.log_lines and not (serves and serves.is_secret)
        return Logged(command, printable(line) if shows_line else command, entry)

    @property
    def entries(self) -> list[Entry]:
        """Every command once, and the entry that serves unknown commands; by their numbers less 1."""
        return [*self.commands, *([self.unknown] if self.unknown else [])]

    def numbered(self, number: int) -> Entry | None:
        """Return the entry of a number, or None if no entry has it."""
        entries = self.entries
        return entries[number - 1] if 0 < number <= len(entries) else None

    @property
    def commands(self) -> list[Entry]:
        """Every command once, in the order of registration."""
        return list({id(entry): entry for entry in self.table.values()}.values())
