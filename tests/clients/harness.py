"""For tests with real clients: running them, proxies, random kills, and recording what they send."""

from __future__ import annotations

import contextlib
import os
import random
import select
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import redis

from linepool.testing import Server
from tests.servers import ServerProcess

TIMEOUT = 60.0  # seconds; only there to fail


def output(*command: str | int) -> str:
    """Run a client program; return what it printed, and fail if its exit status is not 0."""
    done = subprocess.run(
        [str(word) for word in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@contextlib.contextmanager
def redis_client(server: Server | ServerProcess, **options: Any) -> Iterator[Any]:
    """Give a redis-py client of a server."""
    host, _, port = server.address.rpartition(":")
    options = {"decode_responses": True, "socket_timeout": TIMEOUT, **options}
    with redis.Redis(host, int(port), **options) as client:
        yield client


@contextlib.contextmanager
def redis_server(directory: Path, *options: str) -> Iterator[int]:
    """Run a real Redis, with these options besides; give the port on which it listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number = free.getsockname()[1]
    command = ["redis-server", "--port", str(number), "--save", "", "--bind", "127.0.0.1"]
    command += options
    program = shutil.which("redis-check-rdb")  # the same binary, in redis-tools
    process = subprocess.Popen(
        command, executable=program, cwd=directory, stdout=subprocess.DEVNULL
    )
    try:
        wait_for_port(number, process)
        yield number
    finally:
        process.terminate()
        process.wait(TIMEOUT)


@contextlib.contextmanager
def nutcracker(directory: Path, server: ServerProcess, *, redis: bool) -> Iterator[int]:
    """Run twemproxy in front of a server; give the port on which it listens."""
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
        process.wait(TIMEOUT)


def wait_for_port(number: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until a process listens on a port; fail if the process ends before."""
    while process.poll() is None:
        with contextlib.suppress(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", number)).close()
            return
        select.select([], [], [], 0.01)
    raise AssertionError(f"{process.args!r} ended with {process.returncode}")


class Killer:
    """Kills random workers of a server, one after the other, until the block ends.

    It kills the next one once the last one has been replaced.

    Args:
        server: The server.
        most: The number of kills after which it stops.
    """

    def __init__(self, server: ServerProcess, most: int) -> None:
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
        while self.killed < self._most and not self._stop.is_set():
            if not (pids := self._pids()):  # all of them are being replaced
                continue
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim := random.choice(pids), signal.SIGKILL)
                self.killed += 1
                while victim in self._pids():  # until then a client may still get it
                    pass
            self._stop.wait(0.05)  # the clients need time to make progress between two kills

    def _pids(self) -> list[int]:
        workers = self._server.status()["workers"]
        return [worker["pid"] for worker in workers if worker["state"] in ("idle", "busy")]


class Recorder:
    """A proxy for one connection to a server, which keeps what the client sent."""

    def __init__(self, server: ServerProcess) -> None:
        self._server = server
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.sent = b""
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Recorder:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join(TIMEOUT)
        self._listener.close()

    def _run(self) -> None:
        client, _ = self._listener.accept()
        with client, self._server.connect() as server:
            while True:
                for ready in select.select([client, server.socket], [], [], TIMEOUT)[0]:
                    data = ready.recv(65536)
                    if not data:
                        return
                    if ready is client:
                        self.sent += data
                        server.send(data)
                    else:
                        client.sendall(data)


def all_together(count: int, work: Callable[[int], object]) -> None:
    """Run a function in ``count`` processes at once; fail if one of them fails."""
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
