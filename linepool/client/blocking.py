"""The client that blocks: for threads and scripts."""

from __future__ import annotations

import contextlib
import math
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar, overload

from linepool.client.calls import Calls, PipelineCalls
from linepool.client.command import Command
from linepool.client.core import Core, Event, Kind, ProtocolError
from linepool.client.deadlines import deadline_of
from linepool.client.errors import named
from linepool.client.flow import (
    Flow,
    failure_of,
    milliseconds_until,
    unless_refused,
)
from linepool.client.hooks import Hook
from linepool.client.identity import id_of_call
from linepool.client.login import credentials_of
from linepool.client.request import Prepared, unchanged
from linepool.client.sockets import TlsOptions, Watch, set_options
from linepool.client.stream import Stream
from linepool.client.wires import Prepare, ProtocolName, spoken

if TYPE_CHECKING:
    import os
    import ssl

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

_CHUNK = 64 * 1024
_TIMEVAL = struct.Struct("@ll")
_MOST_SECONDS = 1_000_000_000


class Client(Calls):
    """Calls the commands of a server; threads may share it, and forked processes too.

    Nothing is connected before the first call.

    Args:
        addresses: One, or several of servers that serve the same: HOST:PORT, PORT, unix:/PATH ...
        protocol: What the servers speak: line (the framed line protocol), jsonrpc (JSON-RPC 2.0, one message
            per line) or resp (that of Redis).
        timeout: Seconds that a call may take in all, with connecting and retries; of a stream, that
            each value may take. None: without limit.
        connect_timeout: Seconds to try to connect.
        max_connections: Most connections to each address; more calls at a time wait.
        retries: Whether anything is tried again.
        tls: True, or a context of ``ssl``: all addresses use TLS, as those that begin with tls:// do. The
            server's certificate must be trusted, and for the host of the address.
        tls_ca: File or directory with the certificates of the CAs that are trusted, in place of the
            system's, as PEM. With a file, all addresses use TLS unless ``tls`` is False.
        tls_cert: File with the client's certificate, as PEM; with the key, if that is not ...
        tls_key: ... in this file.
        user: Whose log-in each connection begins with ...
        password: ... and the password; of Redis, without a user too.
        hooks: Generator functions around each call, which see a ``linepool.client.Call``.

    Raises:
        ValueError: An address, a number or a file is wrong.
    """

    def __init__(  # noqa: PLR0913 - options
        self,
        *addresses: str,
        protocol: ProtocolName | None = None,
        timeout: float | None = 30.0,
        connect_timeout: float = 2.0,
        max_connections: int = 64,
        retries: bool = True,
        tls: bool | ssl.SSLContext | None = None,
        tls_ca: str | os.PathLike[str] | None = None,
        tls_cert: str | os.PathLike[str] | None = None,
        tls_key: str | os.PathLike[str] | None = None,
        user: str | None = None,
        password: str | None = None,
        hooks: Sequence[Hook] = (),
    ) -> None:
        speech = spoken(protocol or self.speaks)
        super().__init__(
            Flow(
                SocketIO(),
                addresses,
                core=speech.core,
                connect_timeout=connect_timeout,
                max_connections=max_connections,
                retries=retries,
                tls=TlsOptions(tls, tls_ca, tls_cert, tls_key),
                hooks=hooks,
                credentials=credentials_of(user, password, speech.name),
            ),
            speech,
            timeout,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @overload
    def call(self, command: str, /, *args: Any, **kwargs: Any) -> Any: ...

    @overload
    def call(self, command: Command[R], /, *args: Any, **kwargs: Any) -> R: ...

    @overload
    def call(self, command: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...

    def call(self, command: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call a command by its name, or by its handler's function, and return its result.

        Args:
            command: The name, or the function: then arguments and result have the function's types.
            args: By position, or all ...
            kwargs: ... by name.

        Returns:
            The value; of several values a list, or what the function's return annotation says.

        Raises:
            ReplyError: The server says what is wrong: ClientError, ServerError, UnknownCommand.
            LoginRefused: User or password are wrong.
            ConnectionFailed: There is no reply; ``was_sent`` says whether the call may have been run.
            CallTimeout: There was none in time; likewise.
            UnexpectedReply: The result is not of the function's return type.
            TypeError, ValueError: An argument has no form in JSON.
        """
        request, result = self._prepare(command, args, kwargs)
        may_repeat = self._may_repeat(command)
        is_simple = not (may_repeat or self._flow.hooks)
        event = self._call_at_once(request) if is_simple else None
        if event is None:
            event = _run(self._flow.call(request, self._timeout, is_idempotent=may_repeat))
        kind, value = event
        if kind is Kind.ERROR:
            raise named(value, request.name)
        return result.several(value) if kind is Kind.SEVERAL else result.value(value)

    def _call_at_once(self, request: Prepared) -> Event | None:
        """Do what ``Flow.call`` does, in plain functions; None: nothing was sent, so all is still to do."""
        flow = self._flow
        deadline = deadline_of(self._timeout)
        place = flow.ready()
        if place is None:
            return None
        connection: Any = place.connection
        core: Core = connection.core
        wire: _Wire = connection.wire
        is_sent = is_kept = False
        try:
            wire.send_now(core.request(*request, milliseconds_until(deadline)), deadline)
            is_sent = True
            while (event := core.reply()) is None:
                core.feed(wire.receive(deadline))
            unless_refused(event)
            is_kept = core.is_at_rest
        except (OSError, ProtocolError) as error:
            if not is_sent and not isinstance(error, TimeoutError):
                return None
            raise named(failure_of(error, place), request.name) from error
        finally:
            flow.end(place, is_kept=is_kept)
        return event

    @overload
    def stream(self, command: str, /, *args: Any, **kwargs: Any) -> Iterator[Any]: ...

    @overload
    def stream(self, command: Command[list[T]], /, *args: Any, **kwargs: Any) -> Iterator[T]: ...

    @overload
    def stream(
        self, command: Callable[P, Iterable[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Iterator[T]: ...

    def stream(self, command: Any, /, *args: Any, **kwargs: Any) -> Iterator[Any]:
        """Call a command, and yield its values as they come; to leave early closes the connection.

        The request is sent when the first value is asked for.

        Raises:
            LinepoolError: As in ``call``, in place of the next value.
        """
        request, result = self._prepare(command, args, kwargs)
        return self._values(Stream(self._flow, request, self._timeout), result.item)

    def stream_line(self, line: bytes) -> Iterator[Any]:
        """Send a line as a person types it, and yield its values as ``stream`` does.

        Raises:
            ValueError: It is more than one line, or the protocol has no such lines.
        """
        if self._protocol.name != "line":
            raise ValueError(f"{self._protocol.name} has no lines that a person types: use call()")
        if b"\n" in line or b"\r" in line:
            raise ValueError("a request is one line")
        return self._values(
            Stream(self._flow, Prepared(line, as_json=False, name=id_of_call()), self._timeout),
            unchanged,
        )

    @staticmethod
    def _values(stream: Stream, convert: Callable[[Any], Any]) -> Iterator[Any]:
        try:
            while (event := _run(stream.next()))[0] is not Kind.END:
                yield convert(event[1])
                if event[0] is Kind.VALUE:
                    return
        finally:
            stream.close()

    def pipeline(self) -> Pipeline:
        """Return a block of calls that are sent together at its end, on one connection."""
        return self._pipeline(Pipeline)

    def _pipeline(self, kind: Callable[[Flow, Prepare, float | None], T]) -> T:
        """Return a pipeline of a class, which may have methods of its own."""
        return kind(self._flow, self._prepare, self._timeout)

    def close(self) -> None:
        """Close the connections; those in use when their calls are done. Further calls fail."""
        self._flow.close()


class Pipeline(PipelineCalls):
    """Calls that are sent together when the ``with`` block ends without an exception.

    The client's timeout is for all of them. An error in one leaves the others as they are.
    """

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            _run(self._send())


def _run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Return what a coroutine returns, none of whose awaits suspends it."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        value: T = end.value
        return value
    raise AssertionError("a coroutine of the blocking client was suspended")


class _Wire:
    """A blocking socket whose time limit is the kernel's (SO_RCVTIMEO, socket(7)), at no system call more."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._watch = Watch(sock)
        self._limit = math.inf
        self._early: list[bytes] = []  # what came while more was sent

    async def send(self, data: bytes, deadline: float) -> None:
        self.send_now(data, deadline)

    async def recv(self, deadline: float) -> bytes:
        return self.receive(deadline)

    def send_now(self, data: bytes, deadline: float) -> None:
        """Send bytes, as ``send``."""
        try:
            sent = self._send(data)
            if sent < len(data):
                self._send_rest(memoryview(data)[sent:], deadline)
        except ConnectionError:
            if not self._early:
                with contextlib.suppress(OSError):
                    self._early.append(self._socket.recv(_CHUNK, socket.MSG_DONTWAIT))
            if not any(self._early):  # otherwise the server has said why
                raise

    def _send(self, data: bytes | memoryview) -> int:
        try:
            return self._socket.send(data, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return 0

    def _send_rest(self, data: memoryview, deadline: float) -> None:
        """Send what remains, and read meanwhile: a server that cannot send its replies reads no requests."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN | select.POLLOUT)
        while data:
            left = deadline - monotonic()
            ready = poll.poll(None if left == math.inf else max(left, 0) * 1000)
            if not ready:
                raise TimeoutError
            if ready[0][1] & ~select.POLLOUT:
                received = self._socket.recv(_CHUNK)
                if not received:
                    raise ConnectionError("the server closed the connection")
                self._early.append(received)
            data = data[self._send(data) :]

    def receive(self, deadline: float) -> bytes:
        """Return the next bytes, as ``recv``."""
        if self._early:
            return self._early.pop(0)
        while True:
            left = deadline - monotonic()
            if not 0.99 * self._limit <= left <= 1.01 * self._limit:  # it may be a hundredth late
                self._set_limit(left)
            try:
                return self._socket.recv(_CHUNK)
            except BlockingIOError:
                if monotonic() >= deadline:
                    raise TimeoutError from None

    def _set_limit(self, left: float) -> None:
        if left <= 0:
            raise TimeoutError
        self._limit = left
        seconds, part = divmod(0.0 if left == math.inf else max(left, 1e-6), 1)  # 0: without limit
        limit = _TIMEVAL.pack(int(min(seconds, _MOST_SECONDS)), int(part * 1e6))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)

    def send_at_once(self, data: bytes) -> None:
        """Send bytes as far as that takes no time."""
        self._send(data)

    def is_quiet(self) -> bool:
        return self._watch.is_quiet()

    def close(self) -> None:
        self._socket.close()

    def forget(self) -> None:
        self._socket.close()

    def __del__(self) -> None:
        self._socket.close()  # of a call that was lost to an exception out of a signal handler


class _Waiter:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    async def wait(self, deadline: float) -> bool:
        left = deadline - monotonic()
        return self._lock.acquire(timeout=-1 if left > threading.TIMEOUT_MAX else max(left, 0))

    def set(self) -> None:
        if self._lock.locked():
            self._lock.release()


class SocketIO:
    """Connects and waits, and blocks meanwhile."""

    async def connect(self, target: str | tuple[str, int], deadline: float) -> _Wire:
        """Return a new connection."""
        left = deadline - monotonic()
        if left <= 0:
            raise TimeoutError
        if isinstance(target, str):
            sock = socket.socket(socket.AF_UNIX)
            try:
                sock.settimeout(left)
                sock.connect(target)
            except BaseException:
                sock.close()
                raise
        else:
            sock = socket.create_connection(target, left)
        set_options(sock)
        sock.settimeout(None)
        return _Wire(sock)

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)

    def waiter(self) -> _Waiter:
        """Return what waits for a free connection."""
        return _Waiter()
