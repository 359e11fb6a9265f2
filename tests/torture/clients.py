"""The clients of torture_churn.py. Run as a program, it is all busy clients, in a process of their own.

Busy clients keep their connections. Half of them, if not told otherwise, send requests without a
pause; the others pause for up to 150 ms between requests, so that their connections are parked and
handed off all the time. One time in eight a client sends three requests at once. No request number
is used twice.
"""

from __future__ import annotations

import collections
import contextlib
import itertools
import json
import random
import resource
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from hashlib import sha256

from attrs import Factory, astuple, define, frozen

_REPLY_LIMIT = 20.0  # seconds; a reply that takes longer counts as lost
_MAX_PAUSE = 0.15  # seconds; three times the time after which a connection is parked
_BURST = 3  # requests sent at once, one time in _BURST_ONE_IN
_BURST_ONE_IN = 8
_TICK = 0.005  # seconds between two checks for clients whose pause is over
_RETRY_AFTER = 0.01  # seconds, after a lost connection
_IDLE_FIRST = 10**12  # the first request number of the idle connections
TIMED_OUT = "timed out"


@frozen
class Answered:
    """A request that got a reply.

    Attributes:
        pid: The worker that the reply names.
        is_correct: The reply is the one to this request.
    """

    request: int
    pid: int
    is_correct: bool


@frozen
class Lost:
    """A request without a complete reply, and the connection that it was sent on."""

    request: int
    port: int
    opened_at: float
    lost_at: float
    how: str


@frozen
class Outcomes:
    """What became of requests."""

    answered: list[Answered] = Factory(list)
    lost: list[Lost] = Factory(list)


def _check_reply(request: int, line: bytes) -> Answered:
    words = line.split()
    proof = sha256(b"%d" % request).hexdigest().encode()
    is_correct = len(words) == 3 and words[0] == b"%d" % request and words[2] == proof
    return Answered(request, int(words[1]) if is_correct else 0, is_correct)


# Idle clients.


def raise_descriptor_limit(count: int) -> None:
    """Let this process open so many connections."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert count + 256 <= hard, f"{count} connections need more than {hard} descriptors"
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def open_idle(port: int, count: int) -> list[socket.socket]:
    """Open connections and send nothing."""
    raise_descriptor_limit(count)
    return [socket.create_connection(("127.0.0.1", port), _REPLY_LIMIT) for _ in range(count)]


def query_idle(idle: Sequence[socket.socket]) -> Outcomes:
    """Send one request on each connection, all at once; read the replies and close."""
    outcomes = Outcomes()
    began = time.monotonic()
    failed: dict[int, str] = {}
    for request, sock in enumerate(idle, _IDLE_FIRST):
        try:
            sock.sendall(b"WORK %d\n" % request)
        except OSError as error:
            failed[request] = type(error).__name__
    for request, sock in enumerate(idle, _IDLE_FIRST):
        port = sock.getsockname()[1]
        with sock, sock.makefile("rb") as file:
            try:
                sock.settimeout(max(0.01, began + _REPLY_LIMIT - time.monotonic()))
                line = b"" if request in failed else file.readline()
            except OSError as error:
                line, failed[request] = b"", type(error).__name__
        if line.endswith(b"\n"):
            outcomes.answered.append(_check_reply(request, line))
        else:
            how = failed.get(request, "closed")
            outcomes.lost.append(Lost(request, port, 0.0, time.monotonic(), how))
    return outcomes


# Busy clients, as the test sees them.


class BusyClients:
    """The process that runs the busy clients."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def finish(self) -> Outcomes:
        """Stop sending, wait for the outstanding replies, and return what became of all requests."""
        output, _ = self._process.communicate(timeout=_REPLY_LIMIT + 10)
        found = json.loads(output)
        return Outcomes(
            [Answered(*one) for one in found["answered"]], [Lost(*one) for one in found["lost"]]
        )


@contextlib.contextmanager
def busy_clients(
    port: int, count: int, first: int = 1, eager: int | None = None
) -> Iterator[BusyClients]:
    """Run busy clients until they are finished, at most until the block ends.

    Args:
        port: The server's.
        count: How many clients.
        first: The number of the first request.
        eager: How many of them never pause; None: half of them.
    """
    numbers = (port, count, first, count // 2 if eager is None else eager)
    command = [sys.executable, "-P", __file__, *map(str, numbers)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield BusyClients(process)
        finally:
            process.kill()


# Busy clients, in their own process.


@define
class _Client:
    """One client: a connection, and the requests on it that wait for replies, oldest first."""

    server_port: int
    pauses: bool
    outcomes: Outcomes
    sock: socket.socket | None = None
    port: int = 0
    opened_at: float = 0.0
    waiting: collections.deque[int] = Factory(collections.deque)
    sent_at: float = 0.0
    send_at: float = 0.0
    received: bytes = b""

    def send(self, selector: selectors.BaseSelector, requests: Sequence[int]) -> None:
        """Send requests in one go; connect first if there is no connection."""
        if not self.sock and not self._open(selector, requests[0]):
            return
        assert self.sock
        self.waiting.extend(requests)
        self.sent_at = time.monotonic()
        try:
            self.sock.sendall(b"".join(b"WORK %d\n" % request for request in requests))
        except OSError as error:
            self.lose(selector, type(error).__name__)

    def _open(self, selector: selectors.BaseSelector, request: int) -> bool:
        """Connect; if that fails, the request counts as lost."""
        self.opened_at = time.monotonic()
        try:
            self.sock = socket.create_connection(("127.0.0.1", self.server_port), _REPLY_LIMIT)
        except OSError as error:
            self.port = 0
            self.waiting.append(request)
            self.lose(selector, f"connect: {type(error).__name__}")
            return False
        self.port = self.sock.getsockname()[1]
        selector.register(self.sock, selectors.EVENT_READ, self)
        return True

    def read(self, selector: selectors.BaseSelector) -> None:
        """Read the replies that have arrived."""
        assert self.sock
        try:
            data = self.sock.recv(65536)
        except OSError as error:
            self.lose(selector, type(error).__name__)
            return
        if not data:
            self.lose(selector, "closed within a reply" if self.received else "closed")
            return
        *lines, self.received = (self.received + data).split(b"\n")
        for line in lines:
            request = self.waiting.popleft() if self.waiting else -1
            self.outcomes.answered.append(_check_reply(request, line))

    def lose(self, selector: selectors.BaseSelector, how: str) -> None:
        """Close the connection and count all requests on it as lost."""
        now = time.monotonic()
        self.outcomes.lost.extend(
            Lost(request, self.port, self.opened_at, now, how) for request in self.waiting
        )
        self.waiting.clear()
        self.received = b""
        self.send_at = now + _RETRY_AFTER
        if self.sock:
            selector.unregister(self.sock)
            self.sock.close()
            self.sock = None


class _Busy:
    """All busy clients."""

    def __init__(
        self, server_port: int, count: int, first: int, eager: int, selector: selectors.BaseSelector
    ) -> None:
        self._selector = selector
        self._random = random.Random(count)
        self._numbers = itertools.count(first)
        self.outcomes = Outcomes()
        self.clients = [_Client(server_port, i >= eager, self.outcomes) for i in range(count)]

    def send(self) -> None:
        """Send requests for each client that waits for no reply and whose pause is over."""
        now = time.monotonic()
        for client in self.clients:
            if not client.waiting and now >= client.send_at:
                count = 1 if self._random.randrange(_BURST_ONE_IN) else _BURST
                client.send(self._selector, list(itertools.islice(self._numbers, count)))

    def read(self) -> bool:
        """Read what arrives within a tick; return False at the end of stdin."""
        is_open = True
        for key, _ in self._selector.select(_TICK):
            client = key.data
            if client is None:
                self._selector.unregister(key.fileobj)
                is_open = False
                continue
            client.read(self._selector)
            if not client.waiting and client.pauses:
                client.send_at = time.monotonic() + self._random.uniform(0, _MAX_PAUSE)
        return is_open

    def expire(self) -> bool:
        """Give up requests that are out of time; return whether others still wait."""
        limit = time.monotonic() - _REPLY_LIMIT
        waiting = [client for client in self.clients if client.waiting]
        for client in waiting:
            if client.sent_at < limit:
                client.lose(self._selector, TIMED_OUT)
        return bool(waiting)

    def close(self) -> None:
        """Close all connections."""
        for client in self.clients:
            if client.sock:
                client.sock.close()


def _main(server_port: int, count: int, first: int, eager: int) -> None:
    """Send requests until stdin ends, then print what became of them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the test handles ^C
    with selectors.DefaultSelector() as selector:
        selector.register(sys.stdin, selectors.EVENT_READ)
        busy = _Busy(server_port, count, first, eager, selector)
        with contextlib.closing(busy):
            busy.send()
            while busy.read():
                busy.expire()
                busy.send()
            while busy.expire():
                busy.read()
    found = {
        "answered": [astuple(one) for one in busy.outcomes.answered],
        "lost": [astuple(one) for one in busy.outcomes.lost],
    }
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    _main(*map(int, sys.argv[1:]))
