"""From a request to its reply: one connection's conversation, without its socket.

A worker moves the bytes; ``App.ask``, the control socket and tests use the same class with bytes alone.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Generator, Iterator, Sequence
from contextvars import Context, copy_context
from functools import partial
from typing import Any, cast

from linepool import failures, forked
from linepool.around import Next, Watched
from linepool.authentication import check_lock, log_in, refuse_if_locked
from linepool.batch import Owner, end_batch, end_early
from linepool.encryption import may_start_tls
from linepool.errors import LeaveNow, ReplyError, RequestTimeout, UnknownCommand
from linepool.failures import OK, count_error, encoded, error_reply, failed, report, result_of
from linepool.login import Login
from linepool.protocols.base import Bad, Request, printable
from linepool.protocols.strangers import HTTP, MOST_KEPT_BYTES, FirstBytes, is_http
from linepool.resources import Resources
from linepool.resources.opened import Opened
from linepool.service import NO_REQUEST, Entry, Middleware, Service
from linepool.session import Connection, Detached, Reply, Session
from linepool.waiting import Wait

log = logging.getLogger("linepool")

_ADMITTED = MOST_KEPT_BYTES + 1  # in a dump, in place of the number of first bytes kept
_PLAIN = {type(None), bool, int, float, str, bytes, list, tuple, dict}
"""Types that are neither a Reply nor a stream; to look for a stream costs more than all else here."""


class Conversation:
    """The requests and replies of one connection.

    Args:
        service: The app.
        session: What the connection remembers.
        resources: The worker's.
        owner: Makes the live connection when a handler or hook first asks for it; without an owner,
            that is one without a socket, see ``take_pushed``.

    Attributes:
        protocol: Fed by the owner of the bytes.
        request: The present one, or the last.
        closing: Set once nothing more is answered: the connection ends, or TLS begins (``starts_tls``).
        armed: Whether RequestTimeout may be raised now, from a signal handler: a handler runs.
        overdue: What would have been raised if a handler had been running; a stream ends with it.
        errors: How many requests ended in SERVER_ERROR.
        timeouts: How many of these had run past their deadline.
        pinned: A handler or hook has asked for the live connection, so it stays in this worker.
        held: The resources of the connection that are open; None: none was asked for.
        runs: Called with the number of a command when a handler is called for a part of the request.
        result: How the last request has ended; ``refusal``: what has come in place of one; both until read.
        may_wait: The present request may wait for a topic; otherwise its time is up at once.
        wait: What it is to wait for; None: it does not.
        taken_bytes: What the protocol has taken of a request that is not complete, for the observer.
    """

    # Rarely read attributes are set here, so that a new conversation need not set them.
    armed = starts_tls = False
    overdue: RequestTimeout | None = None
    timeouts = 0
    runs: Callable[[int], None] = staticmethod(lambda _number: None)
    result, refusal = OK, ""
    may_wait = False
    wait: Wait | None = None
    taken_bytes = 0
    _broken = False  # a stream has ended with an error
    held: Opened | None = None
    _live: Connection | None = None
    _first_bytes: FirstBytes | None = None  # None: the client is admitted
    retracted = b""  # the reply in place of those of a failed batch, where nothing else sends it
    _context: Context  # of the present request

    def __init__(
        self, service: Service, session: Session, resources: Resources, owner: Owner | None = None
    ) -> None:
        self.service = service
        self.session = session
        self.resources = resources
        self.closing = False
        self.errors = 0
        self.pinned = False
        self.protocol = service.open_protocol()
        self._has_login = service.authenticate is not None
        if self._has_login:
            check_lock(self)
        if service.guard:
            self._first_bytes = FirstBytes()
        self._owner = owner
        self.request = NO_REQUEST
        self._has_around = service.has_around
        self._is_wrapped = bool(service.middleware) or self._has_login

    @property
    def connection(self) -> Connection:
        """The live connection."""
        if self._live is None:
            self._live = self._owner.open_handle() if self._owner else Detached(self)
        return self._live

    @property
    def cookie(self) -> int:
        """The number that the kernel gives the client's socket (SO_COOKIE); 0: it has none."""
        return int(getattr(self._owner, "cookie", 0))

    @property
    def login(self) -> Login:
        """What logs the client in."""
        return Login(partial(log_in, self) if self._has_login else None)

    def check_lock(self) -> None:
        """Note whether the client has logged in or out. Pre-condition: the app has clients log in."""
        check_lock(self)

    def release(self) -> None:
        """Let go of the live connection, which refers to this conversation."""
        self._live = self._owner = None

    @contextlib.contextmanager
    def disarmed(self) -> Iterator[None]:
        """Hold RequestTimeout back while the server's own code runs in the middle of a handler."""
        was_armed, self.armed = self.armed, False
        try:
            yield
        finally:
            self.armed = was_armed
        if was_armed and self.overdue is not None:
            self.armed = False
            raise self.overdue

    def take_errors(self) -> tuple[int, int]:
        """Return ``errors`` and ``timeouts`` since the last call."""
        errors, timeouts = self.errors, self.timeouts
        self.errors = self.timeouts = 0
        return errors, timeouts

    def retract(self, reply: bytes) -> None:
        """Send a reply in place of all those that have not been sent."""
        if self._owner is not None:
            self._owner.retract(reply)
        else:
            self.retracted = reply

    def end_batch_early(self) -> None:
        """End the batch in the middle of a handler; raises as ``batch.end_early``."""
        end_early(self)

    def take_pushed(self) -> bytes:
        """Return what was pushed since the last call to a live connection without a socket."""
        return self._live.take() if isinstance(self._live, Detached) else b""

    def greet(self) -> bytes:
        """Run the ``on_connect`` hooks and return what the server says first."""
        parts = [self.protocol.greeting()]
        self.resources.look_if_due()
        for hook in self.service.on_connect:
            try:
                self._context = copy_context()
                with forked.contained():
                    said = self._context.run(hook, self)
                if said is not None:
                    reply = self._encode(said, self.request)
                    parts += [reply] if isinstance(reply, bytes) else reply
            except LeaveNow:
                raise
            except BaseException as error:  # noqa: BLE001 - logged with its id
                self.closing = True
                failure = error if isinstance(error, ReplyError) else failed(self, error, None)
                parts.append(encoded(self, failure, None))
                break
        if self._has_login:
            check_lock(self)
        if self.resources.is_open and not end_batch(self):
            parts.clear()
        return b"".join(parts)

    def admit(self, data: bytes) -> bool:
        """Examine bytes that come before the first request; return whether to feed them, or to end."""
        if self._first_bytes is not None:
            reason = self._first_bytes.reason(data, self.service.find)
            if reason:
                self.refuse(Bad(b"", close=True, why=reason))
            elif reason is not None:
                self._first_bytes = None
        return not self.closing

    def note_admission(self) -> None:
        """Note that the client's first bytes have been examined."""
        self._first_bytes = None

    def feed(self, data: bytes) -> None:
        """Take bytes from the client, cut anywhere, unless it is refused because of them."""
        if self.admit(data):
            self.protocol.feed(data)

    def dump(self) -> bytes:
        """Return the protocol's state, and the first bytes while the client is not yet admitted."""
        first = self._first_bytes
        kept = b"" if first is None else first.kept
        return b"%c%b%b" % (_ADMITTED if first is None else len(kept), kept, self.protocol.dump())

    def load(self, blob: bytes) -> None:
        """Take over what ``dump`` gave; raises what the protocol's ``load`` raises."""
        size = 0 if blob[0] == _ADMITTED else blob[0]
        self.protocol.load(blob[1 + size :])
        if self._first_bytes is not None:
            self._first_bytes = None if blob[0] == _ADMITTED else FirstBytes(blob[1 : 1 + size])
        if self._has_login:
            check_lock(self)

    def refuse(self, bad: Bad) -> bytes:
        """Return the reply to bytes that are not a request."""
        self.closing |= bad.close
        if bad.reply or bad.close:
            self.refusal = failures.REFUSED if bad.why else failures.CLIENT_ERROR
        if bad.why:
            peer, listener = self.session.peer, self.session.listener
            log.warning(
                "rejected connection peer=%s listener=%s reason=%s", peer, listener, bad.why
            )
        return bad.reply

    def answer(self, request: Request) -> bytes | Generator[bytes, None, None]:
        """Return the reply to one request; if the handler is a generator, the parts of the reply.

        Never raises for what a handler does: the client gets an error reply, the log the traceback.
        """
        self.request = request
        self.overdue = None
        # RequestTimeout can be raised between any two instructions while armed; the outer try catches it
        # wherever that is. It is raised once at most for each request.
        try:
            self.armed = True
            try:
                entry = request.command
                # What the handler sets there is not seen by the next request.
                self._context = context = copy_context()
                depth = forked.depth
                try:
                    if (
                        entry is not None
                        and not self._is_wrapped
                        and (not self._has_around or self.protocol.is_plain(request))
                    ):
                        value = context.run(entry.call, request, self)
                    else:
                        guards = self.service.guard and not self.protocol.is_locked
                        if entry is None and guards and is_http(request.line):
                            return self.refuse(Bad(b"", close=True, why=HTTP))
                        value = self._value(request)
                finally:
                    if forked.depth != depth:
                        forked.end()
                if type(value) in _PLAIN:
                    return self.protocol.encode(value, request)
                if self._has_around and isinstance(value, ReplyError):
                    self.result = result_of(value)
                    return self.protocol.encode_error(value, request)
                return self._encode(value, request)
            finally:
                self.armed = False
        except BaseException as error:  # noqa: BLE001 - SystemExit and the like end a request, not a worker
            self.armed = False
            return error_reply(self, error, request)

    def conclude(
        self, request: Request, value: object, error: BaseException | None, context: Context
    ) -> bytes | Generator[bytes, None, None]:
        """Return the reply to a request whose handler was run by the compiled core; as ``answer``.

        Args:
            request: The request.
            value: What the handler has returned.
            error: What it has raised instead; None: nothing.
            context: In which it ran.
        """
        self.request = request
        self.overdue = None
        self._context = context
        if error is not None:
            return error_reply(self, error, request)
        try:
            self.armed = True  # to encode a value may run code of the app's
            try:
                if self._has_around and isinstance(value, ReplyError):
                    self.result = result_of(value)
                    return self.protocol.encode_error(value, request)
                return self._encode(value, request)
            finally:
                self.armed = False
        except BaseException as failure:  # noqa: BLE001 - as in ``answer``
            self.armed = False
            return error_reply(self, failure, request)

    def eof_reply(self) -> bytes:
        """Return what to send to a client that has ended its stream."""
        bad = None if self.closing else self.protocol.eof()
        if bad is not None:
            self.refusal = failures.INCOMPLETE
        return bad.reply if bad else b""

    def encode(self, value: object) -> bytes:
        """Return a value as a push, encoded as for the present request or the last one.

        Raises:
            TypeError, ValueError: As ``Protocol.encode``.
        """
        return self.protocol.encode_push(value, self.request)

    def run_disconnect_hooks(self) -> None:
        """Run the ``on_disconnect`` hooks, once the connection has ended, and close its resources."""
        for hook in self.service.on_disconnect:
            try:
                with forked.contained():
                    copy_context().run(hook, self)
            except LeaveNow:
                raise
            except BaseException as error:
                log.exception("on_disconnect failed peer=%s", self.session.peer)
                report(self, error, None)
        if self.resources.is_open:
            end_batch(self)
        if self.held is not None:
            self.held.close()

    def _value(self, request: Request) -> Any:
        """Return the value to encode, where more than one handler is called, or middleware, or a check."""
        try:
            if self._has_around:
                return self.protocol.around(request, self.session, self.outcome)
            if self._has_login:
                refuse_if_locked(self, request)
            return self._context.run(self._through, self.service.middleware, request)
        finally:
            if self._has_login:
                check_lock(self)

    def outcome(self, request: Request, *, whole: bool = False) -> Any:
        """Run the handler of a request, and return its value, or the error if it could not.

        Args:
            request: The present one, or a part of it: its protocol makes one reply of all parts.
            whole: Return what a stream yields as a list.
        """
        try:
            if self._has_login:
                refuse_if_locked(self, request)
            self._context = context = copy_context()
            depth = forked.depth
            try:
                value = context.run(self._through, self.service.middleware, request)
                if isinstance(value, Wait) and request is not self.request:
                    value = value.then  # a part of a request cannot wait
                return context.run(list, value) if whole and hasattr(value, "__next__") else value
            finally:
                if forked.depth != depth:
                    forked.end()
        except ReplyError as error:
            count_error(self, error)
            return error
        except (LeaveNow, RequestTimeout):
            raise
        except BaseException as error:  # noqa: BLE001 - as for a request that is not a part of another
            return failed(self, error, request)

    def call(self, request: Request) -> Any:
        """Call the handler of a request; raises UnknownCommand, and what the handler raises."""
        entry: Entry | None = request.command
        if entry is None:
            hint = " HELP lists the commands." if b"HELP" in self.service.table else ""
            raise UnknownCommand(f"unknown command '{printable(request.verb)}'.{hint}")
        if request is not self.request:
            self.runs(entry.number)
        return entry.call(request, self)

    def _through(self, layers: Sequence[Middleware], request: Request) -> Any:
        if not layers:
            return self.call(request)
        return layers[0](request, self.session, Next(self._through, layers[1:]))

    def _encode(self, value: object, request: Request) -> bytes | Generator[bytes, None, None]:
        if isinstance(value, Reply):
            self.closing |= value.close or value.start_tls
            self.starts_tls = value.start_tls and may_start_tls(self.session, self.protocol)
            if value.raw is not None:
                if not isinstance(value.raw, bytes):
                    raise TypeError(f"Reply.raw must be bytes, not {type(value.raw).__name__}")
                return self.protocol.encode_raw(value.raw, request)
            value = value.value
        if isinstance(value, Wait):
            if not (request.command and request.command.waits):
                raise TypeError("a handler that returns Wait must say so: -> ... | linepool.Wait")
            if self.may_wait:
                self.wait = value
                return b""
            return self._encode(value.then, request)
        if hasattr(value, "__next__"):  # as isinstance(value, Iterator), but five times as fast
            parts = self._stream(cast("Iterator[object]", value), request, self._context)
            next(parts)  # from now on it can be closed
            return parts
        return self.protocol.encode(value, request)

    def _stream(
        self, items: Iterator[object], request: Request, context: Context
    ) -> Generator[bytes, None, None]:
        """Yield the parts of a reply; the handler runs only while the next one is requested."""
        parts = self.protocol.encode_stream(items, request)
        try:
            yield b""
            while (part := self._next(parts, items, request, context)) is not None:
                yield part
                if self._broken:
                    break
        finally:
            self._close(items, request, context)

    def _close(self, items: Iterator[object], request: Request, context: Context) -> None:
        """End a generator that may not be exhausted."""
        if isinstance(items, Generator):
            try:
                with forked.contained():
                    context.run(items.close)
            except LeaveNow:
                raise
            except BaseException as error:
                log.exception("a stream failed to end peer=%s", self.session.peer)
                report(self, error, request)

    def _next(
        self, parts: Iterator[bytes], items: Iterator[object], request: Request, context: Context
    ) -> bytes | None:
        """Return the next part of a stream, the error reply that ends it, or None: it has ended."""
        self._broken = True
        depth = forked.depth
        try:
            self.armed = True
            try:
                if self.overdue is not None:
                    raise self.overdue
                part = context.run(next, parts, None)
            finally:
                self.armed = False
                if forked.depth != depth:
                    forked.end()
        except BaseException as error:  # noqa: BLE001 - as for a handler that is not a stream
            self.armed = False
            if isinstance(items, Watched):  # it does not know of what was not raised in it
                with forked.contained():
                    error = context.run(items.tell, error)
            return error_reply(self, error, request)
        self._broken = False
        return part
