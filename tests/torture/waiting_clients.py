"""The clients of torture_waiting.py: each waits for an item, again and again, and now and then one leaves."""

from __future__ import annotations

import contextlib
import random
import select
import socket
from collections.abc import Iterable, Sequence

from attrs import define, field

_NONE = b"none"


@define(eq=False)
class Client:
    """One connection; its number names it in the database.

    Attributes:
        number: No other connection has it.
        request: What it sends.
        sock: To the server.
        waits: It has sent a request, and has no answer yet.
        unread: A part of an answer.
    """

    number: int
    request: bytes
    sock: socket.socket
    waits: bool = False
    unread: bytes = b""


@define
class Crowd:
    """Clients in one thread.

    Args:
        port: The server's.
        queues: What a client may wait for.
        rng: Decides what each one does.

    Attributes:
        goes_on: A client that has an answer asks again.
        received: By item, the numbers of the clients that got it.
        left: The numbers of the clients that have left.
        ended: Those of the clients whose connection the server has ended.
        wrong: Answers that are neither an item nor what was asked for.
        none: How often the time of a request was up.
    """

    port: int
    queues: Sequence[str]
    rng: random.Random
    goes_on: bool = True
    received: dict[int, list[int]] = field(factory=dict)
    left: set[int] = field(factory=set)
    ended: set[int] = field(factory=set)
    wrong: list[bytes] = field(factory=list)
    none: int = 0
    _clients: dict[int, Client] = field(factory=dict)
    _epoll: select.epoll = field(factory=select.epoll)
    _last: int = 0

    def close(self) -> None:
        """End the run: all of them leave."""
        self.leave_all()
        self._epoll.close()

    @property
    def waiting(self) -> int:
        """How many of them wait for an answer."""
        return sum(client.waits for client in self._clients.values())

    def come(self, count: int) -> None:
        """Have new clients connect and ask."""
        for _ in range(count):
            self._last += 1
            sock = socket.create_connection(("127.0.0.1", self.port), 30)
            client = Client(self._last, self._request(self._last), sock)
            self._clients[sock.fileno()] = client
            self._epoll.register(sock, select.EPOLLIN)
            self._ask(client)

    def leave(self, count: int) -> None:
        """Have some of them close their connections, whatever happens there at this moment."""
        for client in self.rng.sample(list(self._clients.values()), count):
            self.left.add(client.number)
            self._close(client)

    def leave_all(self) -> None:
        """Have all of them close their connections."""
        self.leave(len(self._clients))

    def step(self, seconds: float) -> None:
        """Read what comes within a time, and ask again; in place of those that were cut off, others come."""
        cut_off = 0
        for descriptor, _ in self._epoll.poll(seconds):
            client = self._clients[descriptor]
            data = b""
            with contextlib.suppress(ConnectionError):
                data = client.sock.recv(4096)
            if not data:
                self.ended.add(client.number)
                self._close(client)
                cut_off += 1
                continue
            *lines, client.unread = (client.unread + data).split(b"\n")
            self._read(client, lines)
        self.come(cut_off)

    def _read(self, client: Client, lines: Iterable[bytes]) -> None:
        for line in lines:
            if not client.waits:
                self.wrong.append(b"unasked: " + line)
            client.waits = False
            if line.isdigit():
                self.received.setdefault(int(line), []).append(client.number)
            elif line == _NONE:
                self.none += 1
            else:
                self.wrong.append(line)
            if self.goes_on:
                self._ask(client)

    def _ask(self, client: Client) -> None:
        client.waits = True
        with contextlib.suppress(ConnectionError):  # the next step sees its end
            client.sock.sendall(client.request)

    def _close(self, client: Client) -> None:
        del self._clients[client.sock.fileno()]
        client.sock.close()

    def _request(self, number: int) -> bytes:
        """Return what a client asks for: most wait for one queue, some for two, some not for long."""
        kind = self.rng.random()
        queues = self.rng.sample(self.queues, 2 if kind < 0.2 else 1)
        timeout = self.rng.uniform(0.2, 4.0) if kind > 0.8 else 600.0
        return f"TAKE {number} {timeout:.2f} {' '.join(queues)}\n".encode()
