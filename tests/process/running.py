"""A server in a process of its own, started as a user starts it, and what a test sees of it."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from linepool.operate import remote
from linepool.testing import Peer

HANDLERS = Path(__file__).parents[1] / "handlers"
PATIENCE = 10.0
"""Seconds; only there to fail."""
_UNWANTED = {"PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE"}
ENVIRONMENT = {name: value for name, value in os.environ.items() if name not in _UNWANTED}
"""Output is buffered, and compiled modules are kept, as most users have it; else a server would take twice
as long to start."""
_PIPE_BYTES = 1024 * 1024
_numbers = itertools.count()


class Gate:
    """A gate in handlers: they say that they have come to it, and wait until the test opens it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        os.mkfifo(path)
        os.mkfifo(f"{path}.bell")
        self._gate = os.open(path, os.O_RDWR)
        self._bell = os.open(f"{path}.bell", os.O_RDWR)

    def wait(self, count: int = 1) -> list[int]:
        """Wait until so many handlers have come to the gate; return the pids of their workers."""
        pids: list[int] = []
        while len(pids) < count:
            assert select.select([self._bell], [], [], PATIENCE)[0], f"only {pids} came to the gate"
            pids += [int(pid) for pid in os.read(self._bell, 4096).split()]
        return pids

    def open(self, count: int = 1) -> None:
        """Let so many handlers through."""
        os.write(self._gate, b"!" * count)

    def close(self) -> None:
        """Let all through who wait, and all to come."""
        os.close(self._gate)
        os.close(self._bell)


class Running:
    """A server that runs.

    Args:
        place: A directory of the test's own; the server runs in it.
        target: A file of ``tests/handlers``, or any other target.
        options: Further options of ``linepool run``.
        bind: What to listen on.
        ready: Whether to wait until the first generation is up.
        environment: Variables to add.
        command: The program, up to the target.
        scheme: How connections reach workers; "": the default.
        more: Arguments of ``subprocess.Popen``.

    Attributes:
        place: Its working directory.
        log: The lines that it has written to stderr, as far as they were waited for.
        addresses: What it listens on, as it says itself.
    """

    def __init__(
        self,
        place: Path,
        target: str,
        *options: str,
        bind: tuple[str, ...] = ("127.0.0.1:0",),
        ready: bool = True,
        environment: Mapping[str, str] | None = None,
        command: tuple[str, ...] = ("-P", "-m", "linepool", "run"),
        scheme: str = "",
        **more: Any,
    ) -> None:
        self.place = place
        self.control = str(place / f"control-{next(_numbers)}")
        file = HANDLERS / target
        words = [sys.executable, *command, str(file) if file.is_file() else target]
        words += [word for address in bind for word in ("--bind", address)]
        words += ["--scheme", scheme] if scheme else []
        self.process = subprocess.Popen(
            [*words, "--control", self.control, *options],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            cwd=place,
            env={**ENVIRONMENT, **(environment or {})},
            **{"stdout": subprocess.DEVNULL, **more},
        )
        assert self.process.stderr is not None
        self._stderr = self.process.stderr.fileno()
        fcntl.fcntl(self._stderr, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self._unread = b""
        self._pidfds: dict[int, int] = {}
        self.log: list[str] = []
        self.addresses: list[str] = []
        if ready:
            with contextlib.ExitStack() as undo:
                undo.callback(self.end)
                self._get_ready()
                undo.pop_all()

    def _get_ready(self) -> None:
        self.wait_for("ready: ")
        said = "listening on "
        self.addresses = [line.removeprefix(said) for line in self.log if line.startswith(said)]

    # What it says.

    def lines(self) -> Iterator[str]:
        """Yield the lines that it writes, until the end of its log."""
        give_up_at = time.monotonic() + PATIENCE
        while True:
            line, ending, rest = self._unread.partition(b"\n")
            if ending:
                self._unread = rest
                self.log.append(line.decode())
                yield self.log[-1]
                continue
            seconds = max(0.0, give_up_at - time.monotonic())
            ready = select.select([self._stderr], [], [], seconds)[0]
            assert ready, f"it neither said it nor ended; its log:\n{self.text}"
            chunk = os.read(self._stderr, 65536)
            if not chunk:
                return
            self._unread += chunk

    def wait_for(self, text: str) -> str:
        """Wait for the next line of the log that holds a text, and return it."""
        for line in self.lines():
            if text in line:
                return line
        raise AssertionError(f"the server ended without a line {text!r}; its log:\n{self.text}")

    @property
    def text(self) -> str:
        """The log as far as it was waited for."""
        return "\n".join(self.log)

    def status(self) -> dict[str, Any]:
        """Return what it says of itself."""
        return remote.status(self.control)

    def order(self, line: str) -> str:
        """Give it an order through the control socket; return the reply."""
        return remote.order(self.control, line)

    def until(self, is_so: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        """Ask for its status until it is as wanted, and return it."""
        give_up_at = time.monotonic() + PATIENCE
        while not is_so(state := self.status()):
            assert time.monotonic() < give_up_at, f"it stayed as it is: {state}"
        return state

    def pids(self) -> list[int]:
        """Return the pids of its workers, by slot."""
        return [worker["pid"] for worker in self.status()["workers"]]

    def watch(self) -> dict[int, int]:
        """Return pidfds of its workers, by pid; readable when the process has ended."""
        for pid in _children(self.process.pid):
            if pid not in self._pidfds:
                with contextlib.suppress(ProcessLookupError):
                    self._pidfds[pid] = os.pidfd_open(pid)
        return self._pidfds

    # What a test does with it.

    def connect(self, listener: int = 0) -> Peer:
        """Return a new connection."""
        return Peer(self.reachable[listener])

    @property
    def reachable(self) -> list[str]:
        """Its addresses, as they are reached from the test's working directory."""
        return [
            f"unix:{self.place / address.removeprefix('unix:')}"
            if address.startswith("unix:")
            else address
            for address in self.addresses
        ]

    def ask(self, line: str) -> str:
        """Return the one line of the reply to a line, on a connection of its own."""
        with self.connect() as peer:
            return peer.ask(line)

    def send(self, number: signal.Signals) -> None:
        """Send its master a signal; before KILL, remember the workers, to end them after the test."""
        if number == signal.SIGKILL:
            self.watch()
        self.process.send_signal(number)

    def ended(self) -> int:
        """Wait until no process of it is left that could write to the log; return the exit status."""
        for _ in self.lines():
            pass
        return self.process.wait(PATIENCE)

    def stop(self) -> int:
        """Stop it gracefully and return its exit status."""
        self.send(signal.SIGTERM)
        return self.ended()

    def end(self) -> None:
        """End whatever is left of it, after the test."""
        if self.process.poll() is None:
            self.watch()
            self.process.kill()
        self.process.wait()
        for pidfd in self._pidfds.values():
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            os.close(pidfd)
        for stream in (self.process.stderr, self.process.stdout):
            if stream is not None:
                stream.close()


class Load:
    """Clients that open a connection for every request, until they are refused.

    Args:
        server: Whom to load.
        clients: How many at a time.
        gap: Whether a client lets a moment pass between its connect and its request.

    Attributes:
        served: How many requests were answered as they should be.
        failures: Of the others, when they had been connected and what came instead.
    """

    def __init__(self, server: Running, clients: int, gap: bool = False) -> None:
        self.server = server
        self.gap = gap
        self.served = 0
        self.failures: list[tuple[float, str]] = []
        self.over = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=[n]) for n in range(clients)]
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        """End the clients and wait for them."""
        self.over.set()
        for thread in self._threads:
            thread.join()

    def _run(self, number: int) -> None:
        addresses = self.server.reachable
        while not self.over.is_set():
            number += 1
            try:
                peer = Peer(addresses[number % len(addresses)])
            except OSError:
                return
            connected_at = time.monotonic()
            with peer:
                got = self._ask(peer, number)
            if got == str(number + 1):
                self.served += 1
            else:
                self.failures.append((connected_at, got))

    def _ask(self, peer: Peer, number: int) -> str:
        try:
            if self.gap:
                # Nothing comes; it is only a moment that passes.
                peer.socket.settimeout(0.002)
                try:
                    return f"early {peer.socket.recv(1)!r}"
                except TimeoutError:
                    peer.socket.settimeout(PATIENCE)
            return peer.ask(f"ADD {number} 1")
        except OSError as error:
            return repr(error)


def is_over(pidfd: int, seconds: float = PATIENCE) -> bool:
    """Whether a process ends within some seconds."""
    return bool(select.select([pidfd], [], [], seconds)[0])


def _children(pid: int) -> list[int]:
    with contextlib.suppress(FileNotFoundError):
        return [
            int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        ]
    return []
