"""Clients of RESP that wait in BLPOP, and one that pushes, all in one thread: the load of ``waiting``."""

from __future__ import annotations

import collections
import gc
import select
import socket
import time

from benchmarks import harness

_STALLED_AFTER = 30.0  # seconds in which nothing comes back


def request(*words: str) -> bytes:
    """Return a command as RESP has it."""
    texts = [b"$%d\r\n%b\r\n" % (len(word), word) for word in (one.encode() for one in words)]
    return b"*%d\r\n%b" % (len(words), b"".join(texts))


class Clients:
    """Connections that wait in BLPOP for one list, and others that push.

    Args:
        port: The server's.
        key: The list.
        waiting: How many connections wait.
        pushing: How many push, one request each at a time.
    """

    def __init__(self, port: int, key: str, waiting: int, pushing: int = 0) -> None:
        self.key = key
        self._blpop = request("BLPOP", key, "0")
        self._epoll = select.epoll()
        self._waiting: dict[int, socket.socket] = {}
        self._pushing: dict[int, socket.socket] = {}
        self._free: collections.deque[socket.socket] = collections.deque()
        for _ in range(waiting):
            sock = self._connect(port)
            self._waiting[sock.fileno()] = sock
            sock.send(self._blpop)
        for _ in range(pushing):
            sock = self._connect(port)
            self._pushing[sock.fileno()] = sock
            self._free.append(sock)

    def _connect(self, port: int) -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", port), _STALLED_AFTER)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._epoll.register(sock, select.EPOLLIN)
        return sock

    def close(self) -> None:
        """Close all connections."""
        for sock in (*self._waiting.values(), *self._pushing.values()):
            sock.close()
        self._epoll.close()

    def wakes(self, seconds: float, rate: float = 0.0, window: int = 0) -> list[float]:
        """Push, at a rate or with a number of items on their way; return how late each came, in seconds."""
        late: list[float] = []
        under_way = pushed = 0
        gc.disable()
        began = last = time.perf_counter()
        ends = began + seconds
        while (now := time.perf_counter()) < ends or under_way:
            is_due = now >= began + pushed / rate if rate else under_way < window
            if is_due and self._free and now < ends:
                text = f"{time.perf_counter():.7f}"
                self._free.popleft().send(request("RPUSH", self.key, text))
                pushed += 1
                under_way += 1
                continue
            pause = 0.1 if not rate or not self._free else max(0.0, began + pushed / rate - now)
            for came in self._read(min(pause, 0.1)):
                last = time.perf_counter()
                late.append(last - came)
                under_way -= 1
            if now - last > _STALLED_AFTER:
                raise harness.BenchmarkError(f"{under_way} items were not delivered")
        gc.enable()
        return late

    def pushes(self, seconds: float) -> int:
        """Push as fast as the replies come; return how often."""
        count = 0
        push = request("RPUSH", self.key, "x")
        ends = time.perf_counter() + seconds
        while time.perf_counter() < ends:
            while self._free:
                self._free.popleft().send(push)
                count += 1
            self._read(1.0)
        while len(self._free) < len(self._pushing):
            self._read(1.0)
        return count

    def _read(self, pause: float) -> list[float]:
        """Read what comes; return when the items were pushed that came, and ask again for each."""
        came = []
        for descriptor, _ in self._epoll.poll(pause):
            if sock := self._pushing.get(descriptor):
                assert sock.recv(4096).startswith(b":")
                self._free.append(sock)
                continue
            sock = self._waiting[descriptor]
            data = sock.recv(4096)
            if not data.startswith(b"*2"):
                raise harness.BenchmarkError(f"a client that waits read {data!r}")
            came.append(float(data.split(b"\r\n")[4]))
            sock.send(self._blpop)
        return came
