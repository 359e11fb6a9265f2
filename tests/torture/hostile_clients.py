"""The hostile clients of torture_hostile.py, in a process of their own.

They have an address of their own, 127.0.0.9, send as fast as they can or in small pieces, and open a
connection again as soon as it is closed.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import resource
import socket
import time
from collections.abc import Iterator

from attrs import Factory, define, frozen

_ADDRESS = "127.0.0.9"
_MOST_OPENED = 50  # connections in one round
_ROUND = 0.0005  # seconds between two rounds of those that do not pause
_READ_BYTES = 1 << 18


@frozen(kw_only=True)
class Load:
    """What hostile clients do.

    Attributes:
        head: Sent once on each connection.
        more: Sent again and again after it; empty: nothing is.
        pause: Seconds between two pieces.
        reads: Whether they read what comes back.
        options: Of the server.
    """

    name: str
    protocol: str
    connections: int = 4
    head: bytes = b""
    more: bytes = b""
    pause: float = 0.0
    reads: bool = True
    options: tuple[str, ...] = ()


@contextlib.contextmanager
def attack(load: Load, port: int) -> Iterator[None]:
    """Have the hostile clients at work while the block runs."""
    process = multiprocessing.get_context("fork").Process(target=_run, args=(load, port))
    process.start()
    try:
        yield
    finally:
        process.kill()
        process.join()


@define
class _Client:
    """One connection, and what is still to be sent of a piece."""

    sock: socket.socket | None = None
    unsent: memoryview = Factory(lambda: memoryview(b""))

    def open(self, load: Load, port: int) -> None:
        """Connect, and send the first bytes."""
        sock = socket.socket()
        sock.settimeout(0.5)
        try:
            sock.bind((_ADDRESS, 0))
            sock.connect(("127.0.0.1", port))
        except OSError:
            sock.close()
            return
        sock.setblocking(False)
        self.sock, self.unsent = sock, memoryview(load.head)

    def turn(self, load: Load) -> None:
        """Send a piece and read what there is; close the connection if the server has."""
        assert self.sock is not None
        try:
            if load.reads and self._read() == b"":
                raise ConnectionError
            if not self.unsent:
                self.unsent = memoryview(load.more)
            if self.unsent:
                with contextlib.suppress(BlockingIOError):
                    self.unsent = self.unsent[self.sock.send(self.unsent) :]
        except OSError:
            self.sock.close()
            self.sock = None

    def _read(self) -> bytes | None:
        assert self.sock is not None
        with contextlib.suppress(BlockingIOError):
            return self.sock.recv(_READ_BYTES)
        return None


def _run(load: Load, port: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    clients = [_Client() for _ in range(load.connections)]
    while True:
        opened = 0
        for client in clients:
            if client.sock is not None:
                client.turn(load)
            elif opened < _MOST_OPENED:
                opened += 1
                client.open(load, port)
        time.sleep(load.pause or _ROUND)
