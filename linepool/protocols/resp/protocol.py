"""RESP, the protocol of Redis, in its versions 2 and 3."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from typing import Any, ClassVar

from linepool.errors import ClientError, ReplyError, SetupError, UnknownCommand, UsageError
from linepool.protocols.base import Builtin, Call, Command, Limits, Request
from linepool.protocols.resp import values as resp_values
from linepool.protocols.resp.clients import ClientId
from linepool.protocols.resp.commands import (
    BEFORE_AUTH,
    BUILTINS,
    LOGIN,
    TRANSACTIONS,
    Authenticate,
    wrong_password,
)
from linepool.protocols.resp.facts import CommandFacts, bounds, facts_of
from linepool.protocols.resp.parser import OFF, ON, SKIP_NEXT, RespParser, parse_int
from linepool.protocols.resp.pubsub import WHILE_SUBSCRIBED
from linepool.protocols.resp.values import OK, NullArray, Push, Status, Verbatim
from linepool.pubsub.messages import Message
from linepool.session import Reply, Session

__all__ = ["OK", "Commands", "NullArray", "Push", "Queued", "Resp", "Status", "Verbatim"]

_MAX_REPEATED_BYTES = 128  # of an unknown command in its error
_ENDS_MULTI = {b"EXEC", b"DISCARD"}
_NOT_QUEUED = {b"MULTI", b"EXEC", b"DISCARD", b"WATCH", b"QUIT", b"RESET"}


def to_int(word: bytes) -> int:
    """Return an int of 64 bits as Redis reads it; raises ValueError."""
    value = parse_int(word)
    if value is None:
        raise ValueError("int")
    return value


def to_float(word: bytes) -> float:
    """Return a float as Redis reads it; raises ValueError."""
    if not word[:1].isspace() and b"_" not in word and word == word.rstrip():
        try:
            value = float(word)
        except ValueError:
            pass
        else:
            if not math.isnan(value):
                return value
    raise ValueError("float")


class Queued:
    """The commands queued since MULTI; injected into an EXEC handler by annotation.

    Call it once to run them; it returns their replies, with a ReplyError for each that failed.
    """

    def __init__(self, requests: list[Request], call: Call) -> None:
        self._requests = requests
        self._call = call

    def __call__(self) -> list[Any]:
        """Run the commands."""
        return [self._run(request) for request in self._requests]

    def _run(self, request: Request) -> Any:
        return _outcome(self._call, request)

    def __len__(self) -> int:
        return len(self._requests)


class Commands:
    """The app's commands, for a handler that runs others, such as EVAL; injected by annotation.

    They run as those of a MULTI: with middleware, in the handler's time, in its worker.
    """

    def __init__(self, request: Request, conversation: Any) -> None:
        self._own = request
        self._conversation = conversation
        self._resp: Resp = conversation.protocol

    def request(self, words: list[bytes]) -> Request:
        """Return the request with these words; its ``command`` is None if there is no such command."""
        return self._resp.request(words)

    def facts(self, request: Request) -> CommandFacts:
        """Return what COMMAND says of a request's command, which must not be None."""
        return facts_of(request.verb.decode("latin-1").upper(), request.command, self._resp.facts)

    def run(self, request: Request) -> Any:
        """Run a command.

        Returns:
            What its handler returns (of a stream, a list), or a ReplyError with Redis' text.
        """
        try:
            return _outcome(self._conversation.outcome, request)
        finally:  # what runs longer than its limit from now on is not the fault of that command
            self._conversation.runs(self._own.command.number)


class Resp(RespParser):
    """The protocol of Redis.

    A connection starts in version 2; HELLO 3 switches it to version 3. A handler's None is null, a
    str or bytes a bulk string, ``Status`` a simple string; lists, dicts, sets, floats and bools
    have their own types in version 3 and the nearest type in version 2.

    Args:
        password: The password that AUTH must give before any other command; None: no password.
        authenticate: Called with the user and the password in place of a comparison with
            ``password``; it returns whether they are right.
        transactions: Serve MULTI, EXEC and DISCARD. The commands queued since MULTI run one after
            the other in one worker; to exclude the other workers, register an EXEC handler that
            takes ``Queued``.
        redis_version: The version in the reply to HELLO, by which clients choose what they send.
        max_request_bytes: Limit of all words of a request together; the limit of a single word is
            ``max_body_bytes``.
        max_queue: Limit of the commands queued since MULTI; with one more, EXEC will fail.
        max_queue_bytes: Likewise, of all their words together.
        facts: What COMMAND says of commands, by their names, in place of the options of their handlers;
            ``linepool.protocols.resp.read_facts`` reads a table.
    """

    line_end = b"\r\n"
    publishes = True
    can_wait: ClassVar[bool] = True
    public_builtins = BEFORE_AUTH
    options: ClassVar[Mapping[str, str]] = {
        "flags": "the command's flags in COMMAND INFO, such as 'write fast'",
        "keys": "where its keys are: '1', '1..-1', '1..-1/2', '#2' (so many as word 2 says, behind it)",
        "group": "the command's group in COMMAND DOCS and of ACL, such as 'string'",
    }
    # Stricter than the usual ones: numbers as Redis reads them.
    converters: ClassVar[Mapping[Any, Callable[[bytes], Any]]] = {int: to_int, float: to_float}
    supplies: ClassVar[Mapping[Any, Callable[[Request, Any], object]]] = {
        Queued: lambda _request, conversation: Queued(
            conversation.protocol.take_queue(), conversation.outcome
        ),
        ClientId: lambda _request, conversation: ClientId.of(conversation),
        Commands: Commands,
    }

    def __init__(  # noqa: PLR0913 - all have defaults
        self,
        *,
        password: str | None = None,
        authenticate: Authenticate | None = None,
        transactions: bool = False,
        redis_version: str = "7.0.15",
        max_request_bytes: int = 64 * 1024 * 1024,
        max_queue: int = 10_000,
        max_queue_bytes: int = 8 * 1024 * 1024,
        facts: Mapping[str, CommandFacts] | None = None,
    ) -> None:
        self.authenticator = authenticate or (_comparison(password) if password else None)
        self.transactions = transactions
        self.redis_version = redis_version
        self.max_request_bytes = max_request_bytes
        self.max_queue = max_queue
        self.max_queue_bytes = max_queue_bytes
        self.facts = facts or {}
        self.containers = {}

    def builtins(self) -> Iterable[Builtin]:
        """PING, HELLO, COMMAND and what else clients need to connect."""
        return (*BUILTINS, *TRANSACTIONS, _EXEC) if self.transactions else BUILTINS

    def login_builtins(self) -> Iterable[Builtin]:
        """AUTH and HELLO."""
        return LOGIN

    def lock(self, limits: Limits, *, is_locked: bool) -> None:
        """Note whether the client has yet to log in; the limits of its requests are then those of Redis."""
        self.is_locked = is_locked

    def locked_error(self, request: Request | None) -> ReplyError:
        """Return Redis' error; it is the same for commands that there are not."""
        if request is not None and request.verb.upper() == b"EXEC":
            text = "Transaction discarded because of: NOAUTH Authentication required."
            return ClientError(text, code="EXECABORT")
        return ClientError("Authentication required.", code="NOAUTH")

    def login_error(self) -> ReplyError:
        """Return Redis' error for a log-in with a wrong password."""
        return wrong_password()

    def check(self, commands: Iterable[Command]) -> None:
        """Refuse handlers with a data block, for words hold any bytes here; note the subcommands."""
        containers: dict[bytes, list[str]] = {}
        whole = {name for command in commands for name in command.names}
        for command in commands:
            for name in command.names:
                facts_of(name, command, self.facts)  # raises if an option is wrong
                top, bar, sub = name.partition("|")
                if bar and top not in whole:
                    containers.setdefault(top.encode(), []).extend([sub] if sub else [])
        self.containers = {top: tuple(subs) for top, subs in containers.items()}
        for command in commands:
            if command.body is not None:
                raise SetupError(
                    f"command {command.names[0]}: RESP has no data blocks;"
                    " take the data as a parameter of type bytes"
                )

    def around(self, request: Request, session: Session, call: Call) -> Any:
        """Answer a request, or queue it in a transaction; drop the reply if the client wants none."""
        muted, self.mute = self.mute, OFF if self.mute == OFF else ON
        value = self._answered(request, call)
        is_muted = muted == SKIP_NEXT or (muted and self.mute)
        if is_muted and not request.verb.upper().endswith(b"SUBSCRIBE"):
            return Reply(raw=b"", close=isinstance(value, Reply) and value.close)
        return value

    def _answered(self, request: Request, call: Call) -> Any:
        if self.subscribed and self.version == 2 and request.verb.upper() not in WHILE_SUBSCRIBED:
            return ClientError(
                f"Can't execute '{request.verb.decode('utf-8', 'replace').lower()}': only (P|S)SUBSCRIBE /"
                " (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context"
            )
        verb = request.verb.upper()
        if self.is_locked:
            return call(request)
        if self.queue is not None:
            return self._in_transaction(verb, request, call)
        if self.transactions and verb in _ENDS_MULTI:
            return ClientError(f"{verb.decode()} without MULTI")
        return call(request)

    def is_plain(self, request: Request) -> bool:
        """Whether no log-in, transaction or subscription affects the request."""
        return (
            not self.is_locked
            and self.queue is None
            and not self.subscribed
            and not self.mute
            and not (self.transactions and request.verb.upper() in _ENDS_MULTI)
        )

    def _in_transaction(self, verb: bytes, request: Request, call: Call) -> Any:
        """Queue a command, or answer it at once if it cannot be queued."""
        assert self.queue is not None
        if verb == b"MULTI":
            return ClientError("MULTI calls can not be nested")
        if verb.endswith(b"SUBSCRIBE") or self._is_no_multi(verb, request):
            self.queue_failed = True
            return ClientError("Command not allowed inside a transaction")
        if verb == b"WATCH":
            return ClientError("WATCH inside MULTI is not allowed")
        if verb == b"EXEC":
            queue_failed, self.queue_failed = self.queue_failed, False
            if queue_failed:
                self.queue = None
                text = "Transaction discarded because of previous errors."
                return ClientError(text, code="EXECABORT")
            try:
                return call(request)
            finally:
                self.queue = None
        if verb in _NOT_QUEUED:
            return call(request)
        if error := _early_error(request):
            self.queue_failed = True
            return error
        return self._queued([request.verb, *request.words])

    def _is_no_multi(self, verb: bytes, request: Request) -> bool:
        name, command = verb.decode("latin-1"), request.command
        return command is not None and "no_multi" in facts_of(name, command, self.facts).flags

    def _queued(self, args: list[bytes]) -> Any:
        """Queue a command; once EXEC is going to fail, only its reply is the same."""
        assert self.queue is not None
        if self.queue_failed:
            return Status("QUEUED")
        self.queue_bytes = sum(map(len, args)) + (self.queue_bytes if self.queue else 0)
        self.queue.append(args)
        if len(self.queue) > self.max_queue or self.queue_bytes > self.max_queue_bytes:
            self.queue_failed = True
            self.queue.clear()
            commands, size = self.max_queue, self.max_queue_bytes
            return ClientError(
                f"a transaction may have {commands} commands and {size} bytes at most"
            )
        return Status("QUEUED")

    def take_back(self, request: Request) -> None:
        """Put a request in front of what has arrived."""
        words = [request.verb, *request.words]
        parts = [b"$%d\r\n%b\r\n" % (len(word), word) for word in words]
        self.put_back(b"*%d\r\n%b" % (len(words), b"".join(parts)))

    def take_queue(self) -> list[Request]:
        """End the transaction; return the commands queued since MULTI."""
        queue, self.queue = self.queue or [], None
        return [self.request(args) for args in queue]

    def encode(self, value: object, request: Request) -> bytes:
        """Return the reply, in the connection's version."""
        if value is OK:
            return b"+OK\r\n"
        return resp_values.encode(value, self.version)

    def encode_message(self, message: Message) -> bytes:
        """Return the push for a subscriber, as Redis sends it."""
        head = ["message"] if message.pattern is None else ["pmessage", message.pattern]
        return resp_values.encode(Push([*head, message.channel, message.data]), self.version)

    def encode_stream(self, items: Iterator[object], request: Request) -> Iterator[bytes]:
        """Yield one array; it begins with its length, so the stream is exhausted first."""
        yield resp_values.encode(list(items), self.version)

    def encode_error(self, error: ReplyError, request: Request | None) -> bytes:
        """Return the error reply, with Redis' text if Redis has this error."""
        return resp_values.encode_error(_in_redis_words(error, request, self.containers))


def exec_(queued: Queued) -> list[Any]:
    """Run the commands queued since MULTI."""
    return queued()


_EXEC: Builtin = (("EXEC",), exec_)


def _comparison(password: str) -> Authenticate:
    return lambda user, given: user == "default" and given == password


def _outcome(call: Call, request: Request) -> Any:
    """Run the handler of a request that is a part of another one; return its value or the error."""
    value = call(request, whole=True)
    if isinstance(value, Reply):
        value = value.value
    return _in_redis_words(value, request) if isinstance(value, ReplyError) else value


def _early_error(request: Request) -> ReplyError | None:
    """Return the error that shows before the command runs: unknown, or the number of its words."""
    if request.command is None:
        return UnknownCommand()
    least, most = bounds(request.command)
    if not least <= len(request.words) <= most:
        return UsageError("", "missing")
    return None


def _in_redis_words(
    error: ReplyError, request: Request | None, containers: Container[bytes] = ()
) -> ReplyError:
    """Return an error with Redis' text if Redis has this error."""
    if isinstance(error, UnknownCommand) and request is not None:
        if request.verb.upper() in containers:
            return ClientError(_unknown_subcommand(request))
        return ClientError(_unknown(request))
    if isinstance(error, UsageError) and error.code is None and request is not None:
        return _usage(error, request)
    return error


def _unknown(request: Request) -> str:
    shown = b""
    for word in request.words:
        if len(shown) >= _MAX_REPEATED_BYTES:
            break
        text = word.partition(b"\0")[0]  # where the word ends for Redis, which is written in C
        shown += b"'%b' " % text[: _MAX_REPEATED_BYTES - len(shown)]
    verb = request.verb[:_MAX_REPEATED_BYTES].decode("utf-8", "replace")
    return f"unknown command '{verb}', with args beginning with: {shown.decode('utf-8', 'replace')}"


def _unknown_subcommand(request: Request) -> str:
    verb = request.verb.decode("utf-8", "replace")
    if not request.words:
        return f"wrong number of arguments for '{verb.lower()}' command"
    shown = request.words[0][:_MAX_REPEATED_BYTES].decode("utf-8", "replace")
    return f"unknown subcommand '{shown}'. Try {verb.upper()} HELP."


def _usage(error: UsageError, request: Request) -> ReplyError:
    if error.problem in ("missing", "surplus"):
        name = request.verb.decode("utf-8", "replace").lower()
        return ClientError(f"wrong number of arguments for '{name}' command")
    if error.problem == "option" or request.command is None:
        return ClientError("syntax error")
    shown = {one.name: one.shown for one in request.command.parameters}.get(error.parameter, "")
    if shown.startswith("int"):
        return ClientError("value is not an integer or out of range")
    if shown.startswith("float"):
        return ClientError("value is not a valid float")
    return ClientError("syntax error" if "|" in shown else str(error))
