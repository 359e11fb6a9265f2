"""HAProxy in front of servers, its statistics, and clients that keep account of what they got."""

from __future__ import annotations

import contextlib
import csv
import os
import select
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from linepool.testing import Peer
from tests.conftest import Launch
from tests.servers import TIMEOUT, ServerProcess

PROGRAM = shutil.which("haproxy", path=f"{os.environ['PATH']}:/usr/sbin")
_CONFIG = """
global
    stats socket {directory}/haproxy.sock level admin
defaults
    mode tcp
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    retries 3
    option redispatch
"""

_LISTEN = """
listen sums
    bind 127.0.0.1:{port}
    balance leastconn
    server one 127.0.0.1:{one} weight 100 check inter 100 agent-check agent-port {one_agent} agent-inter 100
    server two 127.0.0.1:{two} weight 100 check inter 100 agent-check agent-port {two_agent} agent-inter 100
"""
_NAMES = ("one", "two")


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


class Haproxy:
    """A running HAProxy.

    Args:
        directory: For its files.
        listeners: The rest of its configuration.
    """

    def __init__(self, directory: Path, listeners: str) -> None:
        assert PROGRAM, "haproxy is not installed"
        self._socket = directory / "haproxy.sock"
        config = directory / "haproxy.cfg"
        config.write_text(_CONFIG.format(directory=directory) + listeners)
        self.process = subprocess.Popen([PROGRAM, "-q", "-db", "-f", str(config)])

    def __enter__(self) -> Haproxy:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait()

    def stats(self) -> dict[str, dict[str, str]]:
        """Return the columns of its statistics for each server, by the server's name; {}: it starts."""
        try:
            with socket.socket(socket.AF_UNIX) as sock:
                sock.settimeout(TIMEOUT)
                sock.connect(str(self._socket))
                sock.sendall(b"show stat\n")
                with sock.makefile() as replies:
                    text = replies.read()
        except (FileNotFoundError, ConnectionRefusedError):
            return {}
        rows = csv.DictReader(text.removeprefix("# ").splitlines())
        return {row["svname"]: row for row in rows}

    def until(self, server: str, holds: Callable[[dict[str, str]], object]) -> dict[str, str]:
        """Look at the statistics of a server until a condition holds; return them."""
        give_up_at = time.monotonic() + TIMEOUT
        while True:
            row = self.stats().get(server, {})
            if row and holds(row):
                return row
            assert time.monotonic() < give_up_at, f"the condition never held: {row}"
            time.sleep(0.02)


class Clients:
    """Clients of a port, in threads: of each kind some, with a pause after each request.

    Args:
        port: Where they connect.
        short: How many open a connection for each request.
        kept: How many keep theirs until it ends.
        pause: Seconds between two requests of a client.

    Attributes:
        answered: The numbers of the requests that were answered.
        by: How many each server has answered.
        took: How long each one that was answered has taken, in seconds.
        unanswered: Of the others, on kept connections: those that ended instead.
        failed: Of the others, on connections of their own: the numbers.
    """

    def __init__(self, port: int, short: int, kept: int, pause: float = 0.005) -> None:
        self._port = port
        self._pause = pause
        self._lock = threading.Lock()
        self._over = threading.Event()
        self.answered: set[str] = set()
        self.by: dict[str, int] = {}
        self.took: list[float] = []
        self.unanswered: list[str] = []
        self.failed: list[str] = []
        kinds = [self._ask_shortly] * short + [self._ask_on_kept] * kept
        self._threads = [
            threading.Thread(target=kind, args=[number]) for number, kind in enumerate(kinds)
        ]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Clients:
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def until_more(self, count: int) -> None:
        """Wait until so many more requests have been answered."""
        wanted, give_up_at = len(self.answered) + count, time.monotonic() + TIMEOUT
        while len(self.answered) < wanted:
            assert time.monotonic() < give_up_at, "no request is answered any more"
            time.sleep(0.01)

    def _numbers(self, client: int) -> Iterator[str]:
        number = 0
        while not self._over.is_set():
            number += 1
            yield f"{client}-{number}"
            if self._pause:
                time.sleep(self._pause)

    def _ask_shortly(self, client: int) -> None:
        for number in self._numbers(client):
            with Peer(f"127.0.0.1:{self._port}") as peer:
                if not self._ask(peer, number):
                    self.failed.append(number)

    def _ask_on_kept(self, client: int) -> None:
        peer: Peer | None = None
        for number in self._numbers(client):
            if peer is not None and select.select([peer.socket], [], [], 0)[0]:  # its end
                peer.close()
                peer = None
            peer = peer or Peer(f"127.0.0.1:{self._port}")
            if not self._ask(peer, number):
                self.unanswered.append(number)
                peer.close()
                peer = None
        if peer is not None:
            peer.close()

    def _ask(self, peer: Peer, number: str) -> bool:
        began = time.monotonic()
        reply = ""
        with contextlib.suppress(OSError):
            reply = peer.ask(f"NOTE {number}")
        name, _, found = reply.partition(" ")
        if found != number:
            return False
        with self._lock:
            self.answered.add(number)
            self.by[name] = self.by.get(name, 0) + 1
            self.took.append(time.monotonic() - began)
        return True


class Farm:
    """Two servers behind HAProxy.

    Attributes:
        servers: By name.
        port: Of HAProxy.
    """

    def __init__(self, launch: Launch, directory: Path, *options: str) -> None:
        self._launch = launch
        self._options = options
        self._directory = directory
        self.port = free_port()
        self._ports = {name: free_port() for name in (*_NAMES, "one_agent", "two_agent")}
        self.servers: dict[str, ServerProcess] = {}
        for name in _NAMES:
            self.start(name)

    @contextlib.contextmanager
    def haproxy(self) -> Iterator[Haproxy]:
        """Run HAProxy; it has both servers up."""
        listen = _LISTEN.format(port=self.port, **self._ports)
        with Haproxy(self._directory, listen) as proxy:
            for name in _NAMES:
                proxy.until(name, lambda row: row["last_agt"] and row["status"] == "UP")
            yield proxy

    def start(self, name: str) -> None:
        """Start a server."""
        self.servers[name] = self._launch(
            "balanced.py",
            *("--workers", "2", "--agent", f"127.0.0.1:{self._ports[f'{name}_agent']}"),
            *self._options,
            bind=(f"127.0.0.1:{self._ports[name]}",),
            environment={"NAME": name, "JOURNAL": str(self._directory / "journal")},
        )

    def out_of_service(self, name: str, proxy: Haproxy, clients: Clients) -> None:
        """Drain a server, announced, until HAProxy sends it nothing new."""
        self.servers[name].order("DRAIN 1000")
        row = proxy.until(name, lambda row: row["status"].startswith("DRAIN"))
        clients.until_more(20)
        later = proxy.stats()[name]
        assert int(later["stot"]) - int(row["stot"]) <= 1  # was being connected just then

    def restart(self, name: str, proxy: Haproxy, clients: Clients) -> None:
        """Take a server out of service, restart it, and wait until it is back."""
        self.out_of_service(name, proxy, clients)
        assert self.servers[name].stop() == 0
        self.start(name)
        self.until_back(name, proxy)

    def upgrade(self, name: str, proxy: Haproxy, clients: Clients) -> None:
        """Take a server out of service, upgrade it, and wait until it is back."""
        self.out_of_service(name, proxy, clients)
        self.servers[name].order("UPGRADE")
        self.until_back(name, proxy)

    def until_back(self, name: str, proxy: Haproxy) -> None:
        """Wait until HAProxy sends a server clients again."""
        row = proxy.until(name, lambda row: row["status"] == "UP")
        proxy.until(name, lambda later: int(later["stot"]) > int(row["stot"]) + 1)

    def check(self, clients: Clients) -> None:
        """Look at what was run and what was answered: no request that was run has no reply."""
        noted = (self._directory / "journal").read_text().split()
        assert not clients.failed
        assert len(noted) == len(set(noted))
        assert set(noted) == clients.answered
