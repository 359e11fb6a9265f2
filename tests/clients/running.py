"""Helpers for tests with real clients: the examples' servers, proxies, and random kills."""

from __future__ import annotations

import contextlib
import json
import os
import random
import select
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from linepool.testing import Peer
from tests.examples.running import EXAMPLES, Running, run

PATIENCE = 60.0  # seconds; only there to fail


def serve(
    example: str, directory: Path, *words: str, **environment: str
) -> contextlib.AbstractContextManager[Running]:
    """Run an example's server until the block ends."""
    return run(EXAMPLES / example, *words, directory=directory, **environment)


def port(server: Running) -> int:
    return int(server.address.rpartition(":")[2])


def output(*command: str | int) -> str:
    """Run a client; return what it printed, and fail if it does not end well."""
    done = subprocess.run(
        [str(word) for word in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@contextlib.contextmanager
def nutcracker(directory: Path, server: Running, *, redis: bool) -> Iterator[int]:
    """Run twemproxy before a server; give the port on which it listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        front = free.getsockname()[1]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        stats = free.getsockname()[1]
    config = directory / "nutcracker.yml"
    config.write_text(
        f"pool:\n  listen: 127.0.0.1:{front}\n  hash: fnv1a_64\n  distribution: ketama\n"
        f"  redis: {str(redis).lower()}\n  servers:\n   - {server.address}:1\n"
    )
    command = ["nutcracker", "-c", str(config), "-s", str(stats), "-a", "127.0.0.1", "-v", "2"]
    path = f"{os.environ['PATH']}:/usr/sbin"
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, env={**os.environ, "PATH": path})
    try:
        wait_for_port(front, process)
        yield front
    finally:
        process.terminate()
        process.wait(PATIENCE)


def wait_for_port(number: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until somebody listens there; fail if the process ends before."""
    while process.poll() is None:
        with contextlib.suppress(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", number)).close()
            return
        select.select([], [], [], 0.01)
    raise AssertionError(f"{process.args!r} ended with {process.returncode}")


class Killer:
    """Kills random workers of a server, one after the other, until it is stopped.

    The next one dies when the place of the last one has been taken by a new worker.
    """

    def __init__(self, server: Running, most: int) -> None:
        self.killed = 0
        self._server = server
        self._most = most
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Killer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        with Peer(f"unix:{self._server.control}") as peer:
            while self.killed < self._most and not self._stop.is_set():
                pids = _pids(peer)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(victim := random.choice(pids), signal.SIGKILL)
                    self.killed += 1
                    while victim in _pids(peer) and not self._stop.is_set():
                        pass
                self._stop.wait(0.05)  # a pause, so that the clients get on between two kills


def _pids(peer: Peer) -> list[int]:
    state = json.loads(peer.ask("STATUS json"))
    return [worker["pid"] for worker in state["workers"] if worker["state"] in ("idle", "busy")]


class Recorder:
    """Passes one client's connection on to a server, and keeps what the client sent."""

    def __init__(self, server: Running) -> None:
        self._server = server
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.sent = b""
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Recorder:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join(PATIENCE)
        self._listener.close()

    def _run(self) -> None:
        client, _ = self._listener.accept()
        with client, self._server.connect() as server:
            while True:
                for ready in select.select([client, server.socket], [], [], PATIENCE)[0]:
                    data = ready.recv(65536)
                    if not data:
                        return
                    if ready is client:
                        self.sent += data
                        server.send(data)
                    else:
                        client.sendall(data)


def all_together(count: int, work: Callable[[int], object]) -> None:
    """Run a function in so many processes of their own at once; fail if one fails."""
    children = []
    for number in range(count):
        if (pid := os.fork()) == 0:
            status = 1
            try:
                work(number)
                status = 0
            finally:
                os._exit(status)
        children.append(pid)
    statuses = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
    assert statuses == [0] * count
