"""What the tests of connections that go from process to process share."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from linepool.testing import Peer
from tests.process.running import Running

both_schemes = ("shared", "dispatch")


@contextlib.contextmanager
def serving(place: Path, scheme: str, *options: str, **more: Any) -> Iterator[Running]:
    """Give a server, for the tests of a whole module."""
    server = Running(place, "travels.py", *options, scheme=scheme, **more)
    try:
        yield server
    finally:
        server.end()


@contextlib.contextmanager
def clients(server: Running, count: int) -> Iterator[list[Peer]]:
    """Give so many connections."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(server.connect()) for _ in range(count)]


def ask_all(peers: Iterable[Peer], line: str) -> list[str]:
    """Send all of them a line at the same time; return their replies."""
    peers = list(peers)
    for peer in peers:
        peer.send(line.encode() + b"\n")
    return [peer.line() for peer in peers]


def until_parked(server: Running, count: int, hot: int = 0) -> dict[str, Any]:
    """Wait until so many connections are with the parker, and so many with workers."""
    wanted = {"hot": hot, "parked": count}
    return server.until(lambda state: state["connections"] == wanted)


def until_read(server: Running, peers: Iterable[Peer]) -> None:
    """Wait until the server has read all that clients have sent, as the kernel says."""
    ports = {_ports(peer) for peer in peers}

    def is_read(_: dict[str, Any]) -> bool:
        return not any(
            ((there, here) in ports and unread) or ((here, there) in ports and unsent)
            for here, there, unsent, unread, _ in _connections()
        )

    server.until(is_read)


def sockets_of(peers: Iterable[Peer]) -> set[str]:
    """Return the server's sockets of some connections, as they are named in ``/proc/PID/fd``."""
    ports = {_ports(peer) for peer in peers}
    return {
        f"socket:[{inode}]" for here, there, *_, inode in _connections() if (there, here) in ports
    }


def _ports(peer: Peer) -> tuple[int, int]:
    return peer.socket.getsockname()[1], peer.socket.getpeername()[1]


def _connections() -> Iterator[tuple[int, int, int, int, str]]:
    """Yield the ports here and there, the bytes unsent and unread, and the inode (proc(5), net/tcp)."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, here, there, _, queues, _, _, _, _, inode, *_ = line.split()
        unsent, unread = (int(length, 16) for length in queues.split(":"))
        yield _port(here), _port(there), unsent, unread, inode


def _port(address: str) -> int:
    return int(address.rpartition(":")[2], 16)


def parker_of(server: Running, besides: int = 0) -> int:
    """Return the pid of its parker, once there is one that is not ``besides``."""
    master = server.process.pid
    found: set[int] = set()

    def is_there(state: dict[str, Any]) -> bool:
        children = Path(f"/proc/{master}/task/{master}/children").read_text().split()
        workers = {worker["pid"] for worker in state["workers"]}
        found.clear()
        found.update({int(child) for child in children} - workers - {besides})
        return len(found) == 1

    server.until(is_there)
    return found.pop()


def all_of(peer: Peer) -> bytes:
    """Return all bytes up to the end of the stream, which must be a clean one."""
    data = b""
    while chunk := peer.socket.recv(65536):
        data += chunk
    return data


def open_files(pid: int) -> list[str]:
    """Return where the descriptors of a process lead."""
    links = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            links.append(os.readlink(link))
    return links


class Flood:
    """A client that sends requests without end and reads the replies, until it is closed."""

    def __init__(self, server: Running) -> None:
        self._peer = server.connect()
        self._threads = [threading.Thread(target=act) for act in (self._send, self._read)]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """End it."""
        with contextlib.suppress(OSError):
            self._peer.socket.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._peer.close()

    def _send(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                self._peer.socket.sendall(b"ADD 2 3\n" * 1000)

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            while self._peer.socket.recv(65536):
                pass


class Counting:
    """Clients that ask for one number after the other on connections that they keep.

    Attributes:
        asked: How many replies have come.
        wrong: The replies that were not the next number, and the errors.
    """

    def __init__(self, server: Running, count: int) -> None:
        self.asked = 0
        self.wrong: list[str] = []
        self._over = threading.Event()
        self._peers = [server.connect() for _ in range(count)]
        self._threads = [threading.Thread(target=self._run, args=[peer]) for peer in self._peers]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """End them."""
        self._over.set()
        for thread in self._threads:
            thread.join()
        for peer in self._peers:
            peer.close()

    def _run(self, peer: Peer) -> None:
        number = 0
        while not self._over.is_set():
            number += 1
            try:
                got = peer.ask("NEXT_NUMBER")
            except OSError as error:
                got = repr(error)
            if got != str(number):
                self.wrong.append(f"{got!r} in place of {number}")
                return
            self.asked += 1
