"""Servers in processes of their own, started from the command line as a user starts them."""

from __future__ import annotations

import contextlib
import fcntl
import functools
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
from typing import Any, Self

from linepool import core
from linepool.errors import SetupError
from linepool.kernel import features
from linepool.operate import remote
from linepool.testing import Peer
from tests.warm import WarmProcess, start_warm

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
HANDLERS = ROOT / "tests" / "handlers"
TIMEOUT = 40.0
"""Seconds; only there to fail."""
_UNWANTED = {"PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE"}
_KEPT = (core.VARIABLE, features.VARIABLE)
ENVIRONMENT = {
    name: value
    for name, value in os.environ.items()
    if name not in _UNWANTED and (name in _KEPT or not name.startswith("LINEPOOL_"))
} | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
"""Without settings, and with this Python's programs first. Output is buffered and compiled modules are
kept, as most users have it; otherwise a server takes twice as long to start."""
_RUN = ("-P", "-m", "linepool", "run")
_POLL_S = 0.003
_PIPE_BYTES = 1024 * 1024
_numbers = itertools.count()


class Gate:
    """A gate at which handlers wait until the test opens it; ``handlers/common.py`` has their side.

    It is a FIFO, ``path``, from which each handler reads one byte; handlers announce themselves
    through a second one, ``path.bell``.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        os.mkfifo(path)
        os.mkfifo(f"{path}.bell")
        self._gate = os.open(path, os.O_RDWR)
        self._bell = os.open(f"{path}.bell", os.O_RDWR)

    def __enter__(self) -> Gate:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def wait(self, count: int = 1) -> list[int]:
        """Wait until ``count`` handlers have reached the gate; return the pids of their workers."""
        pids: list[int] = []
        while len(pids) < count:
            assert select.select([self._bell], [], [], TIMEOUT)[0], f"only {pids} reached the gate"
            pids += [int(pid) for pid in os.read(self._bell, 4096).split()]
        return pids

    def open(self, count: int = 1) -> None:
        """Let ``count`` handlers through, now or when they arrive."""
        os.write(self._gate, b"!" * count)

    def close(self) -> None:
        """Let all handlers through that wait, and all that arrive later."""
        os.close(self._gate)
        os.close(self._bell)


class Fifo:
    """A FIFO, ``path``, for which handlers wait in poll(2): until it has a byte."""

    def __init__(self, path: Path) -> None:
        self.path = path
        os.mkfifo(path)
        self._fifo = os.open(path, os.O_RDWR)

    def write(self) -> None:
        """Put a byte into it."""
        os.write(self._fifo, b"!")

    def read(self) -> None:
        """Take a byte out of it."""
        os.read(self._fifo, 1)

    def close(self) -> None:
        """Close this end."""
        os.close(self._fifo)


class ServerProcess:
    """A running server; as a context manager it is killed, with all its processes, at the end.

    Args:
        directory: The working directory of the server; its control socket is created there too.
        target: A file of ``tests/handlers``, or any other target.
        options: Further options of ``linepool run``.
        bind: The addresses to listen on.
        ready: Whether to wait until the first generation is up.
        gate: The gate of its handlers.
        environment: Variables to add.
        python: The interpreter.
        command: The program, up to the target.
        wrapper: A program that starts it, with its arguments.
        scheme: How connections reach workers; "": the default.
        warm: Whether it may be forked from a process that has imported linepool (``warm.py``); if it is
            anything else than ``linepool run`` with a stdout of its own, it never is.
        more: Arguments of ``subprocess.Popen``.

    Attributes:
        log: The lines that the server has written to stderr, as far as the test has read them.
        addresses: The addresses that it listens on, from its log.
    """

    def __init__(
        self,
        directory: Path,
        target: str | Path,
        *options: str,
        bind: tuple[str, ...] = ("127.0.0.1:0",),
        ready: bool = True,
        gate: Gate | None = None,
        environment: Mapping[str, str] | None = None,
        python: str = sys.executable,
        command: tuple[str, ...] = _RUN,
        wrapper: tuple[str, ...] = (),
        scheme: str = "",
        warm: bool = True,
        **more: Any,
    ) -> None:
        self.directory = directory
        self.control = str(directory / f"control-{next(_numbers)}")
        file = HANDLERS / target
        words = [*wrapper, python, *command, str(file if file.is_file() else target)]
        words += [word for address in bind for word in ("--bind", address)]
        words += ["--scheme", scheme] if scheme else []
        words += ["--control", self.control, "--log-limit", "0", *options]
        variables = {
            **ENVIRONMENT,
            **({"GATE": str(gate.path)} if gate is not None else {}),
            **(environment or {}),
        }
        warm &= (python, command, wrapper) == (sys.executable, _RUN, ())
        warm &= not any(name.startswith("PYTHON") for name in environment or ())
        self.process: subprocess.Popen[bytes] | WarmProcess
        if warm and more.keys() <= {"stdout"}:
            self.process = start_warm(words, directory, variables, **more)
        else:
            self.process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                cwd=directory,
                env=variables,
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
                undo.callback(self.kill)
                self._wait_until_ready()
                undo.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def _wait_until_ready(self) -> None:
        self.wait_for("ready: ")
        prefix = "listening on "
        lines = [line.removeprefix(prefix) for line in self.log if line.startswith(prefix)]
        self.addresses = [line.partition(" app=")[0] for line in lines]

    @property
    def address(self) -> str:
        """The first address that it listens on."""
        return self.addresses[0]

    @property
    def port(self) -> int:
        """The port of its first address."""
        return int(self.address.rpartition(":")[2])

    def lines(self) -> Iterator[str]:
        """Yield the lines of the log as they are written, until its end."""
        give_up_at = time.monotonic() + TIMEOUT
        while True:
            line, ending, rest = self._unread.partition(b"\n")
            if ending:
                self._unread = rest
                self.log.append(line.decode())
                yield self.log[-1]
                continue
            seconds = max(0.0, give_up_at - time.monotonic())
            ready = select.select([self._stderr], [], [], seconds)[0]
            assert ready, f"neither the line nor the end of the log came:\n{self.text}"
            chunk = os.read(self._stderr, 65536)
            if not chunk:
                return
            self._unread += chunk

    def wait_for(self, text: str) -> str:
        """Return the next line of the log that contains a text."""
        for line in self.lines():
            if text in line:
                return line
        raise AssertionError(f"the server ended without a line {text!r}; its log:\n{self.text}")

    @property
    def text(self) -> str:
        """The log as far as the test has read it."""
        return "\n".join(self.log)

    def status(self) -> dict[str, Any]:
        """Return its status."""
        return remote.status(self.control, TIMEOUT)

    def order(self, line: str) -> str:
        """Send a command to its control socket; return the reply."""
        return remote.order(self.control, line, TIMEOUT)

    def until(self, holds: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        """Ask for its status until a condition holds, and return the status."""
        give_up_at = time.monotonic() + TIMEOUT
        while not holds(state := self.status()):
            assert time.monotonic() < give_up_at, f"the condition never held: {state}"
            time.sleep(_POLL_S)  # else the questions keep the server from what they ask for
        return state

    def pids(self) -> list[int]:
        """Return the pids of its workers, by slot."""
        return [worker["pid"] for worker in self.status()["workers"]]

    def until_gone(self, pid: int) -> dict[str, Any]:
        """Wait until none of its workers has a pid, and return the status."""
        return self.until(lambda state: pid not in [worker["pid"] for worker in state["workers"]])

    def watch(self) -> dict[int, int]:
        """Return pidfds of its workers, by pid; readable when the process has ended."""
        for pid in (*children_of(self.process.pid), *self._kept()):
            if pid not in self._pidfds:
                with contextlib.suppress(ProcessLookupError):
                    self._pidfds[pid] = os.pidfd_open(pid)
        return self._pidfds

    def _kept(self) -> list[int]:
        """Return the pids of workers that are not children of the master, but of keepers."""
        if features.IS_FORCED:
            with contextlib.suppress(SetupError):
                return [one["pid"] for one in remote.status(self.control, 5.0)["workers"]]
        return []

    def connect(self, listener: int = 0) -> Peer:
        """Return a new connection."""
        return Peer(self.reachable[listener])

    @property
    def reachable(self) -> list[str]:
        """Its addresses as seen from the test's working directory."""
        return [
            f"unix:{self.directory / address.removeprefix('unix:')}"
            if address.startswith("unix:") and not address.startswith("unix:@")
            else address
            for address in self.addresses
        ]

    def ask(self, line: str) -> str:
        """Send a line on a new connection; return the first line of the reply."""
        with self.connect() as peer:
            return peer.ask(line)

    def converse(self, script: bytes) -> bytes:
        """Send bytes on a new connection; return everything that comes back."""
        with self.connect() as peer:
            peer.send(script)
            return peer.rest()

    def send(self, number: signal.Signals) -> None:
        """Send the master a signal; before KILL, note the workers, which ``kill`` then ends."""
        if number == signal.SIGKILL:
            self.watch()
        self.process.send_signal(number)

    def ended(self) -> int:
        """Wait until none of its processes is left; return the exit status of the master."""
        for _ in self.lines():
            pass
        return self.process.wait(TIMEOUT)

    def stop(self) -> int:
        """Stop it gracefully and return its exit status."""
        self.send(signal.SIGTERM)
        return self.ended()

    def kill(self) -> None:
        """Kill the processes that are left."""
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


@contextlib.contextmanager
def run_server(
    target: str | Path, directory: Path, *options: str, **environment: str
) -> Iterator[ServerProcess]:
    """Run a server until the block ends; it must then stop gracefully with exit status 0.

    Args:
        target: What to serve.
        directory: The working directory of the server.
        options: Further options of ``linepool run``.
        environment: Variables to add.
    """
    with ServerProcess(directory, target, *options, environment=environment) as server:
        yield server
        assert server.stop() == 0, server.text


class Load:
    """Clients that open a connection for every request, until the server refuses connections.

    Args:
        server: The server.
        clients: Number of clients.
        gap: Whether a client waits for 2 ms between its connect and its request.

    Attributes:
        served: Number of correct replies.
        failures: For each other request: when the client was connected, and what it got.
    """

    def __init__(self, server: ServerProcess, clients: int, gap: bool = False) -> None:
        self.server = server
        self.gap = gap
        self.served = 0
        self.failures: list[tuple[float, str]] = []
        self.over = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=[n]) for n in range(clients)]
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        """Stop the clients and wait for them."""
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
                # Nothing arrives here; this only lets time pass.
                peer.socket.settimeout(0.002)
                try:
                    return f"early {peer.socket.recv(1)!r}"
                except TimeoutError:
                    peer.socket.settimeout(TIMEOUT)
            return peer.ask(f"ADD {number} 1")
        except OSError as error:
            return repr(error)


@functools.cache
def library_files() -> int:
    """Return how many descriptors C libraries keep in each process, as newer ones of libffi do."""
    code = (
        "import os; from linepool.kernel import memory\n"
        "with os.scandir('/proc/self/fd') as found:\n"
        "    print(sum('.so' in os.readlink(one.path) for one in found))"
    )
    return int(subprocess.run([sys.executable, "-c", code], stdout=-1, check=True).stdout)


def has_ended(pidfd: int, within: float = TIMEOUT) -> bool:
    """Whether a process has ended, or ends within some seconds."""
    return bool(select.select([pidfd], [], [], within)[0])


def freeze(pid: int) -> None:
    """Stop a process, and wait until it is stopped (proc(5), stat)."""
    os.kill(pid, signal.SIGSTOP)
    while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
        pass


def children_of(pid: int) -> list[int]:
    """Return the pids of the children of a process, zombies included; without the holder of a worker."""
    with contextlib.suppress(FileNotFoundError):
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [int(child) for child in children if _name_of(child) != "linepool holder"]
    return []


def _name_of(pid: str) -> str:
    with contextlib.suppress(OSError):  # it has ended
        return Path(f"/proc/{pid}/comm").read_text().rstrip()
    return ""
