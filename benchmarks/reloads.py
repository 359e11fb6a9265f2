"""Measure what a reload of changed code costs clients that keep their connections, beside gunicorn and uWSGI.

Each server runs the same app with four workers, linepool over its line protocol, the others over HTTP.
Busy clients send requests at a fixed rate, others are idle. The code is changed and reloaded a few times, in
the way that the server's own documentation gives; a reload is done when all workers are new. At last, when
the clients have left, the code is replaced by some that does not load.

A client that keeps its connection sees three things: a request without a reply, because its connection was
closed under it; a connection that the server has closed between two requests, of which it hears before it
sends the next one, or not; and replies that come late.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from attrs import frozen

from benchmarks import harness
from benchmarks.reload_clients import HTTP, LINES, UNDER_A_REQUEST, Clients, Outcome, Wire

_WORKERS = 4
_SETTLE = 1.0  # seconds before and after a reload
_RELOAD_LIMIT = 60.0  # seconds
_AFTER_BROKEN = 5.0  # seconds in which a server may react to code that does not load
_HEADINGS = (
    "server",
    "requests",
    "failed",
    "closed between requests",
    "closed while idle",
    "worst ms",
    "s per reload",
    "code that does not load",
)
_BROKEN = "def broken(:\n"
_LINES_APP = """\
import linepool

@linepool.handler
def add(a: int, b: int) -> str:
    return f"{{a + b}} v{version}"
"""
_WSGI_APP = """\
from urllib.parse import parse_qs

def application(environ, start_response):
    query = parse_qs(environ["QUERY_STRING"])
    body = b"%d v{version}\\n" % (int(query["a"][0]) + int(query["b"][0]))
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
"""


@frozen
class Contender:
    """A server.

    Attributes:
        settings: How it is run, in words.
        wire: Its protocol.
        app: The text of its app.
        arguments: From port and directory to the command that starts it; the app is the module ``app`` there.
        reload: Has the server of a pid reload what is in the directory.
        missing: What must be installed; "": nothing.
    """

    name: str
    settings: str
    wire: Wire
    app: str
    arguments: Callable[[int, Path], list[str]]
    reload: Callable[[int, Path], None]
    missing: str = ""


def _contenders() -> list[Contender]:
    def linepool(port: int, directory: Path) -> list[str]:
        command = [sys.executable, "-m", "linepool", "run", "app.py", "--bind", f"127.0.0.1:{port}"]
        control = str(directory / "control")
        return [*command, "--workers", str(_WORKERS), "--control", control, "--idle-timeout", "600"]

    def gunicorn(port: int, _directory: Path) -> list[str]:
        # All gunicorns of a user would share one control socket, in the home directory.
        command = [
            sys.executable,
            "-m",
            "gunicorn",
            "--bind",
            f"127.0.0.1:{port}",
            "--workers",
            str(_WORKERS),
        ]
        return [
            *command,
            "--threads",
            "4",
            "--keep-alive",
            "600",
            "--no-control-socket",
            "app:application",
        ]

    def uwsgi(port: int, _directory: Path) -> list[str]:
        command = [
            harness.find("uwsgi"),
            "--http",
            f"127.0.0.1:{port}",
            "--http-keepalive",
            "--http-timeout",
            "600",
        ]
        command += [
            "--add-header",
            "Connection: keep-alive",
            "--processes",
            str(_WORKERS),
            "--master",
        ]
        return [
            *command,
            "--auto-procname",
            "--need-app",
            "--die-on-term",
            "-L",
            "--module",
            "app:application",
        ]

    def chained(port: int, directory: Path) -> list[str]:
        return [
            *uwsgi(port, directory),
            "--lazy-apps",
            "--touch-chain-reload",
            str(directory / "touch"),
        ]

    def hang_up(pid: int, _directory: Path) -> None:
        os.kill(pid, signal.SIGHUP)

    def touch(_pid: int, directory: Path) -> None:
        os.utime(directory / "touch")

    http = (HTTP, _WSGI_APP)
    no_gunicorn = "gunicorn (PyPI)" if harness.module_missing("gunicorn") else ""
    no_uwsgi = "" if harness.find("uwsgi") else "uwsgi (PyPI)"
    return [
        Contender("linepool", "HUP", LINES, _LINES_APP, linepool, hang_up),
        Contender("gunicorn", "gthread of 4 threads; HUP", *http, gunicorn, hang_up, no_gunicorn),
        Contender("uWSGI", "http router; HUP", *http, uwsgi, hang_up, no_uwsgi),
        Contender("uWSGI chain", "http router, lazy-apps; a touch", *http, chained, touch, no_uwsgi),
    ]  # fmt: skip


class Run:
    """A server that runs, and its code in a directory."""

    def __init__(self, contender: Contender, directory: Path) -> None:
        self.contender = contender
        self.directory = directory
        (directory / "touch").touch()
        self.write(contender.app.format(version=0))
        self.port = harness.free_port()
        arguments = contender.arguments(self.port, directory)
        environment = {"PYTHONDONTWRITEBYTECODE": "1"}  # an edit within a second would not be seen
        self.program = harness.Program(
            arguments, directory / "log", cwd=directory, environment=environment
        )

    def write(self, code: str) -> None:
        """Replace the code at once, as a deployment does."""
        new = self.directory / "app.new"
        new.write_text(code)
        new.replace(self.directory / "app.py")

    def workers(self) -> set[int]:
        """Return the pids of the workers."""
        if self.contender.name == "linepool":
            return set(harness.linepool_workers(self.directory / "control"))
        found = set(harness.children(self.program.pid))
        return {pid for pid in found if "http" not in _command_line(pid)}

    def answers(self) -> str:
        """Return the version of the code that answers a request; "": there is no answer."""
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", self.port), 2) as sock,
        ):
            sock.settimeout(2)
            sock.sendall(self.contender.wire.request(1, 1))
            received = b""
            while data := sock.recv(65536):
                received += data
                if (reply := self.contender.wire.parse(received)) is not None:
                    return reply.text.partition(" ")[2]
        return ""

    def reload(self, code: str) -> float:
        """Replace the code and reload it; return after how many seconds all workers were new."""
        old = self.workers()
        self.write(code)
        began = time.monotonic()
        self.contender.reload(self.program.pid, self.directory)
        harness.until("all workers are new", lambda: self._is_new(old), _RELOAD_LIMIT)
        return time.monotonic() - began

    def _is_new(self, old: set[int]) -> bool:
        with contextlib.suppress(OSError, ValueError):
            now = self.workers()
            return len(now) >= _WORKERS and not now & old
        return False

    def broken(self) -> str:
        """Reload code that does not load; return what the server does then."""
        before = self.answers()
        self.write(_BROKEN)
        self.contender.reload(self.program.pid, self.directory)
        give_up_at = time.monotonic() + _AFTER_BROKEN
        while time.monotonic() < give_up_at:
            if not self.program.is_running:
                return "the server ends"
            time.sleep(0.1)
        version = self.answers()
        if not version:
            return "it runs, and answers nothing"
        return "old code serves" if version == before else f"{version} serves"


def _command_line(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text()
    return ""


@contextlib.contextmanager
def _running(contender: Contender) -> Iterator[Run]:
    with tempfile.TemporaryDirectory() as name:
        run = Run(contender, Path(name))
        try:
            harness.until(f"{contender.name} answers", run.answers)
            harness.until("all workers are up", lambda: len(run.workers()) >= _WORKERS)
            yield run
        except (harness.BenchmarkError, OSError):
            shutil.copyfileobj(run.program.log.open(errors="replace"), sys.stderr)
            raise
        finally:
            run.program.stop()


def _measure(
    contender: Contender, reloads: int, busy: int, idle: int, rate: float
) -> tuple[Outcome, list[float], str]:
    """Return what became of requests and connections, the times, and what broken code does."""
    with _running(contender) as run:
        clients = Clients(run.port, contender.wire, busy, idle, rate)
        times = []
        try:
            for number in range(1, reloads + 1):
                time.sleep(_SETTLE)
                times.append(run.reload(contender.app.format(version=number)))
            time.sleep(_SETTLE)
        finally:
            outcome = clients.finish()
        newest = f"v{reloads}"
        if run.answers() != newest or newest not in outcome.versions:
            raise harness.BenchmarkError(f"{contender.name} does not serve the newest code")
        return outcome, times, run.broken()


def _row(
    contender: Contender, idle: int, outcome: Outcome, times: list[float], broken: str
) -> tuple[str, ...]:
    failed = sum(outcome.failed.values())
    others = {how: count for how, count in outcome.failed.items() if how != UNDER_A_REQUEST}
    shown = ", ".join(f"{how} {count}" for how, count in others.items())
    return (
        f"{contender.name} ({contender.settings})",
        str(outcome.requests),
        str(failed) + (f" ({shown})" if shown else ""),
        str(outcome.closed_between + outcome.announced),
        f"{outcome.idle_closed} of {idle}",
        f"{outcome.worst_ms:.0f}",
        f"{sum(times) / len(times):.1f}",
        broken,
    )


def _run() -> int:
    parser = harness.parser(__doc__)
    text = "default: %(default)s"
    parser.add_argument("--reloads", type=harness.at_least_one, default=5, help=text)
    parser.add_argument("--busy", type=harness.at_least_one, default=16, help=f"clients; {text}")
    parser.add_argument(
        "--idle", type=harness.at_least_one, default=200, help=f"connections; {text}"
    )
    parser.add_argument("--rate", type=harness.seconds, default=1000, help=f"requests/s; {text}")
    parser.add_argument(
        "--only", nargs="+", metavar="SERVER", help="names of servers, such as gunicorn"
    )
    options = parser.parse_args()
    rows = []
    failed = False
    for contender in _contenders():
        if options.only and contender.name not in options.only:
            continue
        if contender.missing:
            print(f"left out: {contender.name} needs {contender.missing}", file=sys.stderr)
            continue
        print(f"{contender.name} ...", file=sys.stderr)
        found = _measure(contender, options.reloads, options.busy, options.idle, options.rate)
        rows.append(_row(contender, options.idle, *found))
        outcome = found[0]
        if contender.name == "linepool":
            failed = bool(outcome.failed or outcome.closed_between or outcome.idle_closed)
    print(
        f"{options.reloads} reloads, {options.busy} clients with {options.rate:g} requests/s in all,"
        f" {options.idle} idle connections; {harness.machine()}\n"
    )
    print(harness.table(_HEADINGS, rows))
    return int(failed)


if __name__ == "__main__":
    harness.main(_run)
