"""Clients that keep their connections while a server reloads, and count what that costs them.

Busy clients send a request each time one is due, whatever happened to the one before; the others have sent
one request, and are idle. A client whose connection has ended opens another one.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator

from attrs import Factory, define, frozen

_REPLY_LIMIT = 10.0  # seconds; a reply that takes longer counts as a failed request
_CONNECT_LIMIT = 2.0  # seconds
_RETRY_AFTER = 0.01  # seconds after a connection that was refused
UNDER_A_REQUEST = "closed under a request"


@frozen
class Reply:
    """A complete reply.

    Attributes:
        text: What was asked for; "": an error.
        closes: The server has said that it closes the connection after it.
    """

    text: str
    closes: bool = False


@frozen
class Wire:
    """How requests are written and replies are read.

    Attributes:
        request: From two numbers to the bytes that ask for their sum.
        parse: From the bytes received so far to the reply; None: it is not complete.
    """

    request: Callable[[int, int], bytes]
    parse: Callable[[bytes], Reply | None]


def _line_request(a: int, b: int) -> bytes:
    return b"ADD %d %d\n" % (a, b)


def _line_parse(data: bytes) -> Reply | None:
    if not data.endswith(b"\n"):
        return None
    text = data.decode().strip()
    return Reply("" if "ERROR" in text else text)


def _http_request(a: int, b: int) -> bytes:
    return b"GET /add?a=%d&b=%d HTTP/1.1\r\nHost: localhost\r\n\r\n" % (a, b)


def _http_parse(data: bytes) -> Reply | None:
    head, separator, body = data.partition(b"\r\n\r\n")
    if not separator:
        return None
    status, *lines = head.decode("latin-1").lower().split("\r\n")
    fields = dict(line.split(":", 1) for line in lines)
    if len(body) < int(fields.get("content-length", "0")):
        return None
    ok = status.split()[1] == "200"
    return Reply(body.decode().strip() if ok else "", "close" in fields.get("connection", ""))


LINES = Wire(_line_request, _line_parse)
HTTP = Wire(_http_request, _http_parse)


@define
class Outcome:
    """What became of requests and connections.

    Attributes:
        failed: Requests without a correct reply, by what happened to them.
        closed_between: Connections of busy clients that the server closed between two requests.
        announced: Those of which the reply before had said so.
        idle_closed: Connections that the server closed while they were idle.
        idle_answered: Idle connections that were answered at the end.
        worst_ms: From when a request was due to its reply.
        versions: Of the code that replied, in the order of their first reply.
    """

    requests: int = 0
    failed: Counter[str] = Factory(Counter)
    closed_between: int = 0
    announced: int = 0
    idle_closed: int = 0
    idle_answered: int = 0
    worst_ms: float = 0.0
    versions: list[str] = Factory(list)


@define(eq=False)
class _Client:
    sock: socket.socket | None = None
    due_at: float = 0.0
    asked: tuple[int, int] | None = None  # the request in flight
    received: bytes = b""
    is_idle: bool = False


class Clients:
    """All clients of one server, in a thread of their own.

    Args:
        port: The server's.
        wire: Its protocol.
        busy: Number of clients that send requests.
        idle: Number of clients that do not.
        rate: Requests per second of all of them.
    """

    def __init__(self, port: int, wire: Wire, busy: int, idle: int, rate: float) -> None:
        self.outcome = Outcome()
        self._port = port
        self._wire = wire
        self._period = busy / rate
        self._selector = selectors.DefaultSelector()
        self._over = threading.Event()
        begin = time.monotonic()
        self._idle = [_Client(is_idle=True) for _ in range(idle)]
        self._busy = deque(_Client(due_at=begin + i / rate) for i in range(busy))
        for client in self._idle:
            assert self._ask(client, begin), (
                "the server refuses connections before the first reload"
            )
        self._answer_all(self._idle)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def finish(self) -> Outcome:
        """Stop; ask once more on every idle connection; return what has happened."""
        self._over.set()
        self._thread.join()
        self._answer_all(list(self._busy))
        left = [client for client in self._idle if client.sock is not None]
        before = self.outcome.requests
        now = time.monotonic()
        for client in left:
            self._ask(client, now)
        self._answer_all(left)
        self.outcome.idle_answered = self.outcome.requests - before
        self._close()
        return self.outcome

    def _close(self) -> None:
        for client in (*self._busy, *self._idle):
            self._drop(client)
        self._selector.close()

    def _run(self) -> None:
        while not self._over.is_set():
            now = time.monotonic()
            for client in self._due(now):
                if not self._ask(client, client.due_at):
                    client.due_at = now + _RETRY_AFTER
            self._read(min(client.due_at for client in self._busy) - now)
            self._expire([client for client in self._busy if client.asked])

    def _due(self, now: float) -> Iterator[_Client]:
        return (client for client in self._busy if not client.asked and client.due_at <= now)

    def _answer_all(self, clients: list[_Client]) -> None:
        """Wait for the replies that are outstanding."""
        while any(client.asked for client in clients):
            self._read(0.1)
            self._expire(clients)

    def _ask(self, client: _Client, due_at: float) -> bool:
        """Send one request, on a new connection if there is none; return whether that was possible."""
        number = self.outcome.requests + sum(self.outcome.failed.values())
        try:
            if client.sock is None:
                client.sock = socket.create_connection(("127.0.0.1", self._port), _CONNECT_LIMIT)
                client.sock.settimeout(_REPLY_LIMIT)
                self._selector.register(client.sock, selectors.EVENT_READ, client)
            client.asked, client.due_at, client.received = (number, 1), due_at, b""
            client.sock.sendall(self._wire.request(number, 1))
        except OSError as error:
            refused = client.sock is None
            self._fail(client, f"refused: {type(error).__name__}" if refused else UNDER_A_REQUEST)
            return False
        return True

    def _read(self, pause: float) -> None:
        for key, _ in self._selector.select(min(max(pause, 0.0), 0.1)):
            client: _Client = key.data
            assert client.sock is not None
            data = b""
            with contextlib.suppress(OSError):
                data = client.sock.recv(65536)
            if data:
                client.received += data
                if client.asked and (reply := self._wire.parse(client.received)) is not None:
                    self._replied(client, reply)
            elif client.asked:
                self._fail(client, UNDER_A_REQUEST)
            else:
                self._drop(client)
                if client.is_idle:
                    self.outcome.idle_closed += 1
                else:
                    self.outcome.closed_between += 1

    def _replied(self, client: _Client, reply: Reply) -> None:
        assert client.asked is not None
        result, _, version = reply.text.partition(" ")
        if result != str(sum(client.asked)):
            self._fail(client, "an error as the reply")
            return
        now = time.monotonic()
        self.outcome.requests += 1
        self.outcome.worst_ms = max(self.outcome.worst_ms, (now - client.due_at) * 1000)
        if version not in self.outcome.versions:
            self.outcome.versions.append(version)
        client.asked = None
        client.due_at = max(client.due_at + self._period, now)
        if reply.closes:
            self._drop(client)
            self.outcome.announced += 1

    def _expire(self, clients: list[_Client]) -> None:
        now = time.monotonic()
        for client in clients:
            if client.asked and now > client.due_at + _REPLY_LIMIT:
                self._fail(client, "no reply in time")

    def _fail(self, client: _Client, how: str) -> None:
        self.outcome.failed[how] += 1
        self._drop(client)
        client.due_at = max(client.due_at + self._period, time.monotonic())

    def _drop(self, client: _Client) -> None:
        client.asked = None
        if client.sock is not None:
            self._selector.unregister(client.sock)
            client.sock.close()
            client.sock = None
