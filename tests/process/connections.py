"""Helpers for tests of connections: many at once, where they are, and clients under load."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from linepool.testing import Peer
from tests.servers import ServerProcess

PARKING_SCHEMES = ("shared", "dispatch")


@contextlib.contextmanager
def clients(server: ServerProcess, count: int) -> Iterator[list[Peer]]:
    """Give ``count`` connections."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(server.connect()) for _ in range(count)]


def ask_all(peers: Iterable[Peer], line: str) -> list[str]:
    """Send a line on each connection before any reply is read; return the replies."""
    peers = list(peers)
    for peer in peers:
        peer.send(line.encode() + b"\n")
    return [peer.line() for peer in peers]


def until_parked(server: ServerProcess, count: int, hot: int = 0) -> dict[str, Any]:
    """Wait until the parker holds ``count`` connections and the workers hold ``hot``."""
    wanted = {"hot": hot, "parked": count}
    return server.until(lambda state: state["connections"] == wanted)


def until_read(server: ServerProcess, peers: Iterable[Peer]) -> None:
    """Wait until the server has read everything that the clients have sent (proc(5), net/tcp)."""
    ports = {_ports(peer) for peer in peers}

    def is_read(_: dict[str, Any]) -> bool:
        return not any(
            ((there, here) in ports and unread) or ((here, there) in ports and unsent)
            for here, there, unsent, unread, _ in _connections()
        )

    server.until(is_read)


def sockets_of(peers: Iterable[Peer]) -> set[str]:
    """Return the server's ends of some connections, as ``/proc/PID/fd`` names them."""
    ports = {_ports(peer) for peer in peers}
    return {
        f"socket:[{inode}]" for here, there, *_, inode in _connections() if (there, here) in ports
    }


def _ports(peer: Peer) -> tuple[int, int]:
    return peer.socket.getsockname()[1], peer.socket.getpeername()[1]


def _connections() -> Iterator[tuple[int, int, int, int, str]]:
    """Yield local and remote port, bytes unsent and unread, and inode of each (proc(5), net/tcp)."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, here, there, _, queues, _, _, _, _, inode, *_ = line.split()
        unsent, unread = (int(length, 16) for length in queues.split(":"))
        yield _port(here), _port(there), unsent, unread, inode


def _port(address: str) -> int:
    return int(address.rpartition(":")[2], 16)


def parker_of(server: ServerProcess, besides: int = 0) -> int:
    """Return the pid of its parker, once it has one other than ``besides``."""
    state = server.until(lambda state: state["processes"]["parker"] not in (None, besides))
    return int(state["processes"]["parker"])


def all_of(peer: Peer) -> bytes:
    """Return all bytes up to the end of the stream.

    Raises:
        ConnectionResetError: The stream does not end; the connection is reset.
    """
    data = b""
    while chunk := peer.socket.recv(65536):
        data += chunk
    return data


def open_files(pid: int) -> list[str]:
    """Return the targets of the descriptors of a process."""
    links = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            links.append(os.readlink(link))
    return links


def lowest_free_descriptor(pid: int) -> int:
    """Return the number that the next descriptor of a process will have."""
    taken = {int(name) for name in os.listdir(f"/proc/{pid}/fd")}
    return next(number for number in range(len(taken) + 1) if number not in taken)


def reset_on_close(peer: Peer) -> None:
    """Make the close of a connection reset it (socket(7), SO_LINGER)."""
    peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class Flood:
    """A client that sends requests and reads replies at full speed until it is closed."""

    def __init__(self, server: ServerProcess) -> None:
        self._peer = server.connect()
        self._threads = [threading.Thread(target=act) for act in (self._send, self._read)]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Stop the client."""
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
    """Clients that keep their connections and ask for one number after the other.

    Attributes:
        asked: Number of correct replies.
        wrong: The replies that were not the next number, and the errors.
    """

    def __init__(self, server: ServerProcess, count: int) -> None:
        self.asked = 0
        self.wrong: list[str] = []
        self._over = threading.Event()
        self._peers = [server.connect() for _ in range(count)]
        self._threads = [threading.Thread(target=self._run, args=[peer]) for peer in self._peers]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Stop the clients."""
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
