"""One address that holds as many connections as it gets, and sends more requests than it may: for ``access``.

Prints what it has got as JSON when its time is up.

    python -m benchmarks.attacker --address 127.0.0.2 --seconds 10 7000
"""

from __future__ import annotations

import argparse
import contextlib
import json
import resource
import select
import socket
import time

_IN_A_ROW = 20  # requests in one send()
_REFUSED_REQUEST = b"SERVER_ERROR busy:"
_REFUSED_CONNECTION = b"SERVER_ERROR too many connections"
_CONNECTS = 50  # in one round at most, so that requests are sent meanwhile
_AGAIN = 500  # connects per second, after the first of all of them
_TURN = 0.01  # seconds of a round


class Attacker:
    """The connections of one address.

    Args:
        port: Of the server, on 127.0.0.1.
        address: Its own.
        connections: How many it wants to hold.
        rate: Requests per second that it sends over all of them.
        request: A line; its reply is 3.
    """

    def __init__(self, port: int, address: str, connections: int, rate: int, request: str) -> None:
        self._request = request.encode() + b"\n"
        self._server = ("127.0.0.1", port)
        self._address = address
        self._wanted = connections
        self._rate = rate
        self._socks: dict[int, socket.socket] = {}
        self._open: list[int] = []  # descriptors of those that have connected
        self._poll = select.epoll()
        self._next = self._sent = 0
        self._began = time.monotonic()
        self._counts = dict.fromkeys(
            ("connects", "most_held", "sent", "served", "refused", "refused_connections", "ended"),
            0,
        )

    def run(self, seconds: float) -> dict[str, int]:
        """Attack for some seconds; return what came of it."""
        while (now := time.monotonic()) - self._began < seconds:
            self._connect(now)
            self._send(now)
            for descriptor, event in self._poll.poll(_TURN):
                self._on_event(descriptor, event)
        return self._counts

    def _connect(self, now: float) -> None:
        due = self._wanted + int((now - self._began) * _AGAIN) - self._counts["connects"]
        for _ in range(min(_CONNECTS, due, self._wanted - len(self._socks))):
            sock = socket.socket()
            sock.setblocking(False)
            sock.bind((self._address, 0))
            with contextlib.suppress(BlockingIOError):
                sock.connect(self._server)
            self._socks[sock.fileno()] = sock
            self._poll.register(sock, select.EPOLLIN | select.EPOLLOUT | select.EPOLLET)
            self._counts["connects"] += 1

    def _send(self, now: float) -> None:
        """Send what is due by now, in turn on all connections."""
        due = int((now - self._began) * self._rate)
        tries = len(self._open)
        while self._sent < due and tries:
            tries -= 1
            self._next = (self._next + 1) % len(self._open)
            with contextlib.suppress(OSError):  # it does not read, or is gone
                done = self._socks[self._open[self._next]].send(self._request * _IN_A_ROW)
                self._sent += done // len(self._request)
        self._counts["sent"] = self._sent
        self._sent = max(self._sent, due - self._rate)  # not all of it later

    def _on_event(self, descriptor: int, event: int) -> None:
        sock = self._socks.get(descriptor)
        if sock is None:
            return
        if event & select.EPOLLOUT and not event & (select.EPOLLERR | select.EPOLLHUP):
            self._poll.modify(descriptor, select.EPOLLIN)
            self._open.append(descriptor)
            self._counts["most_held"] = max(self._counts["most_held"], len(self._open))
        try:
            data = sock.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        counts = self._counts
        counts["refused"] += data.count(_REFUSED_REQUEST)
        counts["served"] += data.count(b"3\n")
        counts["refused_connections"] += data.count(_REFUSED_CONNECTION)
        if not data:
            counts["ended"] += 1
            self._poll.unregister(descriptor)
            del self._socks[descriptor]
            if descriptor in self._open:
                self._open.remove(descriptor)
            sock.close()


def _run() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("--address", default="127.0.0.2")
    parser.add_argument("--connections", type=int, default=5000)
    parser.add_argument("--rate", type=int, default=50_000)
    parser.add_argument("--request", default="ADD 1 2")
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    connections, rate = options.connections, options.rate
    attacker = Attacker(options.port, options.address, connections, rate, options.request)
    print(json.dumps(attacker.run(options.seconds)))


if __name__ == "__main__":
    _run()
