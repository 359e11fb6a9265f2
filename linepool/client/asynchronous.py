"""The client for asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar, overload

from linepool.client.calls import Calls, PipelineCalls
from linepool.client.command import Command
from linepool.client.core import Kind
from linepool.client.flow import Flow
from linepool.client.hooks import Hook
from linepool.client.login import credentials_of
from linepool.client.sockets import TlsOptions, Watch, set_options
from linepool.client.stream import Stream
from linepool.client.wires import Prepare, ProtocolName, spoken

if TYPE_CHECKING:
    import os
    import ssl

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

_MOST_UNREAD = 256 * 1024  # bytes, of a stream that is read more slowly than it comes


class AsyncClient(Calls):
    """Calls the commands of a server; the tasks of one event loop share it.

    A call that is cancelled closes its connection, so its reply reaches no other call. Arguments as of
    ``Client``.
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
        self._io = SocketIO()
        speech = spoken(protocol or self.speaks)
        super().__init__(
            Flow(
                self._io,
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

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    @overload
    async def call(self, command: str, /, *args: Any, **kwargs: Any) -> Any: ...

    @overload
    async def call(self, command: Command[R], /, *args: Any, **kwargs: Any) -> R: ...

    @overload
    async def call(self, command: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...

    async def call(self, command: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call a command by its name, or by its handler's function, and return its result.

        Arguments, result and errors are those of ``Client.call``.
        """
        request, result = self._prepare(command, args, kwargs)
        self._io.enter(self._flow)
        kind, value = await self._flow.call(
            request, self._timeout, is_idempotent=self._may_repeat(command)
        )
        return result.several(value) if kind is Kind.SEVERAL else result.value(value)

    @overload
    def stream(self, command: str, /, *args: Any, **kwargs: Any) -> AsyncIterator[Any]: ...

    @overload
    def stream(
        self, command: Command[list[T]], /, *args: Any, **kwargs: Any
    ) -> AsyncIterator[T]: ...

    @overload
    def stream(
        self, command: Callable[P, Iterable[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> AsyncIterator[T]: ...

    def stream(self, command: Any, /, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        """Call a command, and yield its values as they come, as ``Client.stream`` does.

        To leave early, close the iterator with ``aclose()``, or leave that to the event loop.
        """
        request, result = self._prepare(command, args, kwargs)
        return self._values(Stream(self._flow, request, self._timeout), result.item)

    async def _values(self, stream: Stream, convert: Callable[[Any], Any]) -> AsyncIterator[Any]:
        self._io.enter(self._flow)
        try:
            while (event := await stream.next())[0] is not Kind.END:
                yield convert(event[1])
                if event[0] is Kind.VALUE:
                    return
        finally:
            stream.close()

    def pipeline(self) -> AsyncPipeline:
        """Return a block of calls that are sent together at its end, on one connection."""
        return self._pipeline(AsyncPipeline)

    def _pipeline(self, kind: Callable[[Flow, Prepare, float | None], T]) -> T:
        """Return a pipeline of a class, which may have methods of its own."""
        self._io.enter(self._flow)
        return kind(self._flow, self._prepare, self._timeout)

    def close(self) -> None:
        """Close the connections; those in use when their calls are done. Further calls fail."""
        self._flow.close()


class AsyncPipeline(PipelineCalls):
    """Calls that are sent together when the ``async with`` block ends without an exception.

    The client's timeout is for all of them. An error in one leaves the others as they are.
    """

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            await self._send()


class _Wire(asyncio.Protocol):
    """A socket, with a transport of asyncio."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._watch = Watch(sock)
        self._loop = asyncio.get_running_loop()
        self._unread: list[bytes] = []
        self._unread_bytes = 0
        self._has_ended = False
        self._error: Exception | None = None
        self._waiter: asyncio.Future[bool] | None = None
        self._transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._unread.append(data)
        self._unread_bytes += len(data)
        if self._unread_bytes > _MOST_UNREAD:
            self._transport.pause_reading()
        self._wake()

    def connection_lost(self, error: Exception | None) -> None:
        if error is not None:  # a write may have failed before all was read, such as why
            with contextlib.suppress(OSError):
                if data := self._socket.recv(_MOST_UNREAD):
                    self._unread.append(data)
        self._error = error
        self._has_ended = True
        self._wake()

    def eof_received(self) -> None:
        self._has_ended = True
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None:
            _set(self._waiter, value=True)

    async def send(self, data: bytes, deadline: float) -> None:
        if self._has_ended and not self._unread:
            raise self._error or ConnectionError("the server closed the connection")
        self._transport.write(data)

    async def recv(self, deadline: float) -> bytes:
        while not self._unread:
            if isinstance(self._error, OSError):
                raise self._error
            if self._has_ended:
                return b""
            self._waiter = self._loop.create_future()
            if not await _in_time(self._waiter, deadline):
                raise TimeoutError
        data = self._unread[0] if len(self._unread) == 1 else b"".join(self._unread)
        self._unread.clear()
        if self._unread_bytes > _MOST_UNREAD:
            self._transport.resume_reading()
        self._unread_bytes = 0
        return data

    def send_at_once(self, data: bytes) -> None:
        self._transport.write(data)

    def is_quiet(self) -> bool:
        return not (self._unread or self._has_ended) and self._watch.is_quiet()

    def close(self) -> None:
        self._transport.abort()

    def forget(self) -> None:
        # The transport would change what the loop of the other process watches.
        self._socket.close()


class _Waiter:
    def __init__(self) -> None:
        self._future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    async def wait(self, deadline: float) -> bool:
        return await _in_time(self._future, deadline)

    def set(self) -> None:
        _set(self._future, value=True)


class SocketIO:
    """Connects and waits in an event loop."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None

    def enter(self, flow: Flow) -> None:
        """Forget the connections of another event loop than the one that runs."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            if self._loop is not None:
                flow.forget()
            self._loop = loop

    async def connect(self, target: str | tuple[str, int], deadline: float) -> _Wire:
        """Return a new connection."""
        async with asyncio.timeout(max(deadline - monotonic(), 0)):
            if isinstance(target, str):
                return await _connected(socket.AF_UNIX, target)
            host, port = target
            loop = asyncio.get_running_loop()
            error: OSError | None = None
            for family, *_, address in await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM):
                try:
                    return await _connected(family, address)
                except OSError as last:
                    error = last
            raise error or OSError(f"no address of {host}")

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)

    def waiter(self) -> _Waiter:
        """Return what waits for a free connection."""
        return _Waiter()


async def _connected(family: int, address: Any) -> _Wire:
    loop = asyncio.get_running_loop()
    sock = socket.socket(family)
    try:
        sock.setblocking(False)
        await _connect(sock, address)
        set_options(sock)
        _, wire = await loop.create_connection(lambda: _Wire(sock), sock=sock)
    except BaseException:
        sock.close()
        raise
    return wire


async def _connect(sock: socket.socket, address: Any) -> None:
    try:
        await asyncio.get_running_loop().sock_connect(sock, address)
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, os.strerror(error.errno)) from error  # asyncio's text is its own


async def _in_time(future: asyncio.Future[bool], deadline: float) -> bool:
    """Wait for a future until the deadline; False: it has passed."""
    if deadline == math.inf:
        return await future
    handle = future.get_loop().call_later(max(deadline - monotonic(), 0), _set, future, False)
    try:
        return await future
    finally:
        handle.cancel()


def _set(future: asyncio.Future[bool], value: bool) -> None:
    if not future.done():
        future.set_result(value)
