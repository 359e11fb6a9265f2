"""The servers that are compared: how each starts, how new code reaches it, what one does when it hangs."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from attrs import frozen

from benchmarks import harness
from benchmarks.comparisons.wires import (
    Client,
    FailedError,
    Functions,
    Grpc,
    Http,
    Lines,
    resp,
)

SERVICES = Path(__file__).parent / "services"
LIMIT = 2  # seconds for a request, where a server or a client has such a limit
OURS = "linepool"
_RESTART_AFTER = 0.1  # seconds; systemd's default for RestartSec=
_PROBE_LIMIT = 2.0  # seconds
_START_LIMIT = 40.0  # seconds
_HTTP_LOAD = r"GET /collatz?n=6 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


def restart(running: Running) -> None:
    """Stop the server, and start it with the new code."""
    running.stop()
    running.start()


@frozen(kw_only=True)
class Plain:
    """The load of lineload that measures requests per second; no request: it does not speak the protocol."""

    request: str = r"COLLATZ 6\n"
    reply: str = r"8\n"
    reply_prefix: str = ""
    mode: str = "closed"


@frozen(kw_only=True)
class Contender:
    """A server.

    Attributes:
        title: Its name in tables.
        page: The page that compares it with linepool; "": none.
        file: Its file in services/.
        settings: How it is run, in words.
        command: From the port to the command line.
        client: Opens a connection to a port.
        deploy: Has a running server serve the code that is in its directory.
        deploys_by: What ``deploy`` does, in words.
        remedy: What an operator does about a request that never ends, in words.
        packages: What must be installed from PyPI.
        program: The program that must be installed, and its Debian package.
        load: What loads it, requests per second.
        can_wait: Whether its code can wait and crash; a function in Redis can do neither.
        asks_for: The limit of a request that never ends, as its client sets it, in seconds.
    """

    name: str
    title: str
    page: str = ""
    file: str
    settings: str
    command: Callable[[int], list[str]]
    client: Callable[[int], Client] = Lines
    deploy: Callable[[Running], None] = restart
    deploys_by: str = "a restart"
    remedy: str = "kill and restart the server"
    packages: tuple[str, ...] = ()
    program: tuple[str, str] = ("", "")
    load: Plain = Plain()
    can_wait: bool = True
    asks_for: float = 0.0

    def missing(self) -> str:
        """Return what must be installed; "": nothing."""
        for package in self.packages:
            if harness.module_missing(package):
                return f"{package} (PyPI)"
        program, package = self.program
        return f"{program} (Debian: {package})" if program and not harness.find(program) else ""

    def version(self) -> str:
        """Return its version; "": it is a part of Python."""
        if self.program[0]:
            said = subprocess.run(
                [harness.find(self.program[0]), "--version"],
                capture_output=True,
                text=True,
                check=True,
            )
            found = re.search(r"v=([\d.]+)", said.stdout)
            return found[1] if found else said.stdout.strip()
        known = {"grpc": "grpcio", "twisted": "Twisted"}
        return " ".join(
            importlib.metadata.version(known.get(package, package)) for package in self.packages
        )


class Running:
    """A server that runs, with its code in a directory of its own.

    Args:
        contender: The server.
        directory: An empty directory.
    """

    def __init__(self, contender: Contender, directory: Path) -> None:
        self.contender = contender
        self.directory = directory
        for file in ("work.py", contender.file):
            shutil.copy(SERVICES / file, directory / file)
            # Python compiles a new file only if its length or the second of its change differs.
            os.utime(directory / file, (0, 0))
        # Bound, without listening: no other program gets the port while the server is down.
        self._reserved = socket.socket()
        self._reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._reserved.bind(("127.0.0.1", 0))
        self.port: int = self._reserved.getsockname()[1]
        self.program = self._launched()

    def _launched(self) -> harness.Program:
        # Off: compiled modules are kept, as most users have it.
        environment = {"PYTHONDONTWRITEBYTECODE": ""}
        command = self.contender.command(self.port)
        return harness.Program(command, self.directory / "log", self.directory, environment)

    def start(self) -> None:
        """Start the server anew and wait until it answers."""
        self.program = self._launched()
        self.wait()

    def wait(self) -> None:
        """Wait until the server answers."""
        if self.contender.client is Functions:
            harness.until("Redis is up", self._is_up)
            load_functions(self)
        harness.until(f"{self.contender.title} answers", self._answers, _START_LIMIT)

    def _answers(self) -> str:
        if not self.program.is_running:
            raise harness.BenchmarkError(f"{self.contender.title} exited early")
        return self.probe()

    def _is_up(self) -> bool:
        with contextlib.suppress(FailedError), contextlib.closing(Functions(self.port)) as client:
            return client.exchange(_PROBE_LIMIT, resp("PING")) == "PONG"
        return False

    def connect(self) -> Client:
        """Open a connection."""
        return self.contender.client(self.port)

    def probe(self) -> str:
        """Return the version of the code that answers on a new connection; "": there is no answer."""
        with contextlib.suppress(FailedError), contextlib.closing(self.connect()) as client:
            return client.ask(_PROBE_LIMIT, "VERSION")
        return ""

    def write_version(self, number: int) -> None:
        """Replace the code with that of another version, at once, as a deployment does."""
        path = self.directory / self.contender.file
        code = re.sub(
            r"^(local )?VERSION = \d+", rf"\g<1>VERSION = {number}", path.read_text(), flags=re.M
        )
        new = path.with_suffix(".new")
        new.write_text(code)
        new.replace(path)

    def revived(self) -> bool:
        """Start the server again if it has ended, as systemd does; return whether it runs."""
        if not self.program.is_running:
            time.sleep(_RESTART_AFTER)
            self.start()
        return self.program.is_running

    def kill(self) -> None:
        """Kill the server's first process, as the kernel does when memory runs out."""
        os.kill(self.program.pid, signal.SIGKILL)

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Stop the server with all its processes, as systemd does, by a signal."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.program.pid, number)  # each program leads a process group of its own
        self.program.stop(number)

    def close(self) -> None:
        """Kill the server, which may hang, and give up its port."""
        self.stop(signal.SIGKILL)
        self._reserved.close()


def _hang_up(running: Running) -> None:
    os.kill(running.program.pid, signal.SIGHUP)


def _start_beside(running: Running) -> None:
    """Start the new server beside the old one, on the same port; stop the old one when the new one serves."""
    before = running.probe()
    old = running.program
    old.log = old.log.rename(running.directory / "old.log")
    running.start()
    harness.until("the new server serves", lambda: running.probe() not in ("", before))
    old.stop()


def load_functions(running: Running) -> None:
    """Load the functions into Redis."""
    code = (running.directory / running.contender.file).read_text()
    client = Functions(running.port)
    with contextlib.closing(client):
        client.exchange(_START_LIMIT, resp("FUNCTION", "LOAD", "REPLACE", code))


def _python(file: str, *more: str) -> Callable[[int], list[str]]:
    return lambda port: [sys.executable, file, str(port), *more]


def _linepool(port: int) -> list[str]:
    command = [sys.executable, "-m", "linepool", "run", "linepool_service.py"]
    command += ["--bind", f"127.0.0.1:{port}", "--control", "control", "--workers", "2:16"]
    return [*command, "--request-timeout", str(LIMIT)]


def _gunicorn(*more: str) -> Callable[[int], list[str]]:
    def command(port: int) -> list[str]:
        # All gunicorns of a user would share one control socket, in the home directory.
        words = [sys.executable, "-m", "gunicorn", "--bind", f"127.0.0.1:{port}"]
        words += ["--timeout", str(LIMIT), "--no-control-socket"]
        return [*words, *more, "gunicorn_service:application"]

    return command


def _redis(port: int) -> list[str]:
    words = [harness.find("redis-server"), "--bind", "127.0.0.1", "--port", str(port)]
    words += ["--save", "", "--appendonly", "yes"]
    return [*words, "--busy-reply-threshold", str(LIMIT * 1000)]


def all_contenders() -> list[Contender]:
    """Return all servers, linepool first."""
    return [
        Contender(
            name=OURS,
            title=OURS,
            file="linepool_service.py",
            settings=f"`--workers 2:16 --request-timeout {LIMIT}`",
            command=_linepool,
            deploy=_hang_up,
            deploys_by="a reload (HUP)",
            remedy="nothing",
            packages=("linepool",),
        ),
        *_event_loops(),
        *_over_http(),
        *_others(),
    ]


def _event_loops() -> list[Contender]:
    streams = "asyncio_service.py"
    twisted = "twisted_service.py"
    return [
        Contender(
            name="asyncio", title="asyncio streams", page="asyncio", file=streams,
            settings="one process", command=_python(streams),
        ),
        Contender(
            name="uvloop", title="uvloop streams", page="asyncio", file=streams,
            settings="one process, the same code", command=_python(streams, "--uvloop"),
            packages=("uvloop",),
        ),
        Contender(
            name="twisted", title="Twisted", page="twisted", file=twisted,
            settings="one process, LineReceiver", command=_python(twisted),
            packages=("twisted",),
        ),
    ]  # fmt: skip


def _over_http() -> list[Contender]:
    return [
        Contender(
            name=name,
            title=title,
            page="gunicorn",
            file="gunicorn_service.py",
            settings=f"`{' '.join(options)} --timeout {LIMIT}`; {note}",
            command=_gunicorn(*options),
            client=Http,
            deploy=_hang_up,
            deploys_by="a reload (HUP)",
            remedy=remedy,
            packages=("gunicorn",),
            load=Plain(request=_HTTP_LOAD, reply_prefix="HTTP/1.1 200 OK", mode=mode),
        )
        for name, title, options, note, mode, remedy in [
            (
                "gunicorn-sync", "gunicorn sync", ("--workers", "5"),
                "it closes each connection after a reply", "connect", "nothing",
            ),
            (
                "gunicorn-gthread", "gunicorn gthread", ("--workers", "2", "--threads", "8"),
                "connections are kept", "closed", "find the worker that computes, and kill it",
            ),
        ]
    ]  # fmt: skip


def _others() -> list[Contender]:
    sockets = "socketserver_service.py"
    return [
        Contender(
            name="grpc", title="grpcio", page="grpc", file="grpc_service.py",
            settings=f"one process, 16 threads; clients: {LIMIT} s as the deadline of the request that hangs,"
            " and 100 ms instead of 1 s before they connect anew",
            command=_python("grpc_service.py"), client=Grpc, deploy=_start_beside,
            deploys_by="a second process on the same port (SO_REUSEPORT); then TERM to the old one",
            packages=("grpc",), load=Plain(request=""), asks_for=LIMIT,
        ),
        Contender(
            name="redis", title="Redis functions", page="redis-functions", file="redis_service.lua",
            settings=f"`--appendonly yes --busy-reply-threshold {LIMIT * 1000}`", command=_redis,
            client=Functions, deploy=load_functions, deploys_by="FUNCTION LOAD REPLACE",
            remedy="FUNCTION KILL", program=("redis-server", "redis-server"),
            load=Plain(request=r"FCALL collatz 0 6\r\n", reply=r":8\r\n"), can_wait=False,
        ),
        Contender(
            name="threads", title="ThreadingTCPServer", page="socketserver", file=sockets,
            settings="a thread for each connection", command=_python(sockets),
        ),
        Contender(
            name="forks", title="ForkingTCPServer", page="socketserver", file=sockets,
            settings="a process for each connection, 40 at most",
            command=_python(sockets, "--fork"), remedy="find the process that computes, and kill it",
        ),
    ]  # fmt: skip
