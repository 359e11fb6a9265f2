"""Clients that call an app in their own process: the bytes of a real one, without a socket and a server."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any, TypeVar

from linepool.app import App
from linepool.batch import answers
from linepool.client import asynchronous, blocking
from linepool.client.calls import Calls
from linepool.client.flow import Flow
from linepool.client.login import credentials_of
from linepool.client.sockets import TlsOptions
from linepool.client.wires import ProtocolName, spoken
from linepool.conversation import Conversation
from linepool.errors import SetupError
from linepool.protocols.jsonrpc import JsonRpc
from linepool.protocols.line import Line
from linepool.protocols.resp import Resp
from linepool.resources import Resources
from linepool.session import Session

C = TypeVar("C", bound=Calls)

_ADDRESS = "unix:@in-process"  # for messages


def protocol_of(app: App) -> ProtocolName:
    """Return how a client calls the protocol of an app.

    Raises:
        SetupError: The client does not speak it.
    """
    protocol = app.protocol
    if isinstance(protocol, Resp):
        return "resp"
    if isinstance(protocol, JsonRpc) and protocol.framing == "lines":
        return "jsonrpc"
    if isinstance(protocol, Line) and protocol.framed:
        return "line"
    raise SetupError(
        f"the client does not speak {type(protocol).__name__} as the app has it: it speaks Line with framed"
        " requests, JsonRpc with framing='lines', and Resp"
    )


def client_of(app: App, kind: type[C], user: str | None = None, password: str | None = None) -> C:
    """Return a client of a class that calls an app in this process.

    Args:
        app: The app.
        kind: The class.
        user: With which each connection logs in ...
        password: ... and the password.

    Raises:
        SetupError: As ``protocol_of``.
    """
    made: Any = type(kind.__name__, (_InProcess, kind), {})
    client: C = made(app, user, password)
    return client


class _InProcess(Calls):
    """What the client has in place of its connections to a server."""

    def __init__(self, app: App, user: str | None, password: str | None) -> None:
        self._worker = _Worker(app)
        is_async = isinstance(self, asynchronous.AsyncClient)
        self._io: Any = (_AsyncIO if is_async else _BlockingIO)(self._worker)
        protocol = spoken(protocol_of(app))
        flow = Flow(
            self._io,
            (_ADDRESS,),
            core=protocol.core,
            connect_timeout=1,
            max_connections=64,
            retries=False,
            tls=TlsOptions(),
            credentials=credentials_of(user, password, protocol.name),
        )
        Calls.__init__(self, flow, protocol, None)

    def close(self) -> None:
        """Close the connections, and the worker with its resources."""
        self._flow.close()
        self._worker.close()


class _Worker:
    """What a worker has, from the first connection on; threads use it one after the other."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.lock = threading.RLock()  # a handler may call its own app
        self._stack = contextlib.ExitStack()
        self._resources: Resources | None = None

    def conversation(self) -> Conversation:
        if self._resources is None:
            self.app.start()
            self._resources = self._stack.enter_context(self.app.worker())
        session = Session("in-process", "in-process", "in-process")
        return Conversation(self.app._kept_service(), session, self._resources)

    def close(self) -> None:
        with self.lock:
            self._resources = None
            self._stack.close()


class _Wire:
    """A connection: the replies are made when they are read."""

    def __init__(self, worker: _Worker) -> None:
        self._lock = worker.lock
        with self._lock:
            self._conversation = conversation = worker.conversation()
            greeting = conversation.greet()
            self._greeting = conversation.take_pushed() + greeting
        self._replies: Iterator[bytes] | None = None
        self._is_closed = False

    def send_now(self, data: bytes, deadline: float) -> None:
        with self._lock:
            if self._conversation.closing:
                raise ConnectionError("the server closed the connection")
            self._conversation.feed(data)

    def receive(self, deadline: float) -> bytes:
        with self._lock:
            if self._greeting:
                greeting, self._greeting = self._greeting, b""
                return greeting
            if self._replies is None:
                self._replies = answers(self._conversation)
            for part in self._replies:
                if part:
                    return part
            self._replies = None
            return b""  # a server would wait for more; there are requests to reply to, so it has closed

    async def send(self, data: bytes, deadline: float) -> None:
        self.send_now(data, deadline)

    async def recv(self, deadline: float) -> bytes:
        return self.receive(deadline)

    def send_at_once(self, data: bytes) -> None:
        self.send_now(data, 0)

    def is_quiet(self) -> bool:
        return not (self._conversation.closing or self._greeting)

    def close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        with self._lock:
            if self._replies is not None:
                self._replies.close()  # type: ignore[attr-defined]  # a generator
            self._conversation.run_disconnect_hooks()

    def forget(self) -> None:
        pass


class _BlockingIO(blocking.SocketIO):
    def __init__(self, worker: _Worker) -> None:
        super().__init__()
        self._worker = worker

    async def connect(self, target: object, deadline: float) -> Any:
        return _Wire(self._worker)


class _AsyncIO(asynchronous.SocketIO):
    def __init__(self, worker: _Worker) -> None:
        super().__init__()
        self._worker = worker

    async def connect(self, target: object, deadline: float) -> Any:
        return _Wire(self._worker)
