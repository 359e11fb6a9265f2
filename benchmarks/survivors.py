"""The servers of survival.py: how each is started, asked for a sum, made to hang, and reloaded.

Sums take some milliseconds. All listen on a free port of 127.0.0.1 and run as children of the benchmark.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from pathlib import Path

from benchmarks import harness
from benchmarks.peers import fastcgi_request, make_public, php_fpm

WORKERS = 4
LIMIT = 2  # seconds that a request may take
HANG = 1000
TAKES = 0.01  # seconds for one sum
_LINES_APP = f"""\
import time
import linepool

@linepool.handler
def add(a: int, b: int) -> int:
    time.sleep({TAKES})
    return a + b

@linepool.handler
def hang() -> None:
    time.sleep({HANG})
"""
_WSGI_APP = f"""\
import time
from urllib.parse import parse_qs

def application(environ, start_response):
    if environ["PATH_INFO"] == "/hang":
        time.sleep({HANG})
    time.sleep({TAKES})
    query = parse_qs(environ["QUERY_STRING"])
    body = b"%d\\n" % (int(query["a"][0]) + int(query["b"][0]))
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
"""
_BACKEND = """\
import sys
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer
from app import application

class Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    request_queue_size = 128

server = Server(("127.0.0.1", int(sys.argv[1])), WSGIRequestHandler)
server.set_app(application)
server.serve_forever()
"""
_PHP = f"""\
<?php
if ($_GET["a"] === "hang") sleep({HANG});
usleep({TAKES * 1e6:.0f});
echo $_GET["a"] + $_GET["b"], "\\n";
"""
_HAPROXY = """\
defaults
  mode http
  timeout connect 2s
  timeout client 60s
  timeout server {limit}s
listen sums
  bind 127.0.0.1:{port}
  server backend 127.0.0.1:{backend}
"""


class Contender:
    """A server; this class is linepool.

    Attributes:
        name: Its name in the table.
        settings: How it is run, in words.
        workers_wanted: How many worker processes it has; 0: none.
        reload: The signal that has it load its code or configuration anew; None: none does.
        notes: What the table cannot say; for the lines below it.
        unhang: Bytes that end a request that hangs, from another client; b"": it ends by itself.
    """

    name = "linepool"
    settings = f"--request-timeout {LIMIT}"
    workers_wanted = WORKERS
    reload: signal.Signals | None = signal.SIGHUP
    notes = ""
    unhang = b""

    def missing(self) -> str:
        """Return what must be installed; "": nothing."""
        return ""

    def arguments(self, port: int, directory: Path) -> list[str]:
        """Write its files, and return the command that starts it."""
        (directory / "app.py").write_text(_LINES_APP)
        command = [sys.executable, "-m", "linepool", "run", "app.py", "--bind", f"127.0.0.1:{port}"]
        command += ["--workers", str(WORKERS), "--control", str(directory / "control")]
        return [*command, "--request-timeout", str(LIMIT), "--poison-deaths", "0"]

    def workers(self, pid: int, directory: Path) -> list[int]:
        """Return the pids of the workers."""
        del pid
        with contextlib.suppress(OSError, ValueError):
            return harness.linepool_workers(directory / "control")
        return []

    def request(self, a: int, b: int) -> bytes:
        """Return the bytes that ask for a sum."""
        return b"ADD %d %d\n" % (a, b)

    def hang(self) -> bytes:
        """Return the bytes of a request that hangs."""
        return b"HANG\n"

    def is_whole(self, received: bytes) -> bool:
        """Whether a reply has come; of some the end of the connection says that."""
        return received.endswith(b"\n")

    def is_right(self, received: bytes, total: int) -> bool:
        """Whether a reply is the sum."""
        return received == b"%d\n" % total


class _OverHttp(Contender):
    def workers(self, pid: int, directory: Path) -> list[int]:
        del directory
        return harness.children(pid)

    def request(self, a: int, b: int) -> bytes:
        return b"GET /add?a=%d&b=%d HTTP/1.0\r\nHost: localhost\r\n\r\n" % (a, b)

    def hang(self) -> bytes:
        return b"GET /hang?a=1&b=1 HTTP/1.0\r\nHost: localhost\r\n\r\n"

    def is_whole(self, received: bytes) -> bool:
        del received
        return False

    def is_right(self, received: bytes, total: int) -> bool:
        return received.endswith(b"\n%d\n" % total)


class Gunicorn(_OverHttp):
    """gunicorn with its default worker class."""

    name = "gunicorn"
    settings = f"sync, --timeout {LIMIT}"

    def missing(self) -> str:
        return "gunicorn (PyPI)" if harness.module_missing("gunicorn") else ""

    def arguments(self, port: int, directory: Path) -> list[str]:
        (directory / "app.py").write_text(_WSGI_APP)
        command = [sys.executable, "-m", "gunicorn", "--bind", f"127.0.0.1:{port}"]
        command += ["--workers", str(WORKERS), "--timeout", str(LIMIT), "--no-control-socket"]
        return [*command, "app:application"]


class Uwsgi(_OverHttp):
    """uWSGI."""

    name = "uWSGI"
    settings = f"--harakiri {LIMIT} --no-orphans"

    def missing(self) -> str:
        return "" if harness.find("uwsgi") else "uwsgi (PyPI)"

    def arguments(self, port: int, directory: Path) -> list[str]:
        (directory / "app.py").write_text(_WSGI_APP)
        command = [harness.find("uwsgi"), "--http-socket", f"127.0.0.1:{port}", "--master"]
        command += ["--processes", str(WORKERS), "--harakiri", str(LIMIT), "--no-orphans"]
        return [*command, "--need-app", "--die-on-term", "-L", "--module", "app:application"]


class PhpFpm(_OverHttp):
    """PHP-FPM, asked over FastCGI."""

    name = "PHP-FPM"
    settings = f"static, request_terminate_timeout {LIMIT}"
    reload = signal.SIGUSR2

    def __init__(self) -> None:
        self._script = Path()

    def missing(self) -> str:
        return "" if php_fpm() else "php-fpm (Debian)"

    def arguments(self, port: int, directory: Path) -> list[str]:
        self._script = directory / "sum.php"
        self._script.write_text(_PHP)
        make_public(self._script)
        lines = [
            "[global]",
            f"error_log = {directory}/error.log",
            "process_control_timeout = 10s",  # as its manual says for a reload that waits for requests
            "[pool]",
            f"listen = 127.0.0.1:{port}",
            "pm = static",
            f"pm.max_children = {WORKERS}",
            f"request_terminate_timeout = {LIMIT}s",
        ]
        if os.geteuid() == 0:
            lines += ["user = www-data", "group = www-data"]
        config = directory / "fpm.conf"
        config.write_text("\n".join(lines) + "\n")
        return [php_fpm(), "--nodaemonize", "--no-php-ini", "--fpm-config", str(config)]

    def request(self, a: int, b: int) -> bytes:
        return fastcgi_request(self._script, f"a={a}&b={b}")

    def hang(self) -> bytes:
        return fastcgi_request(self._script, "a=hang&b=1")

    def is_right(self, received: bytes, total: int) -> bool:
        return b"\n%d\n" % total in received


class HAProxy(_OverHttp):
    """HAProxy in front of a plain server in Python, which is never killed."""

    name = "HAProxy"
    settings = f"-W, timeout server {LIMIT}s, in front of one server"
    workers_wanted = 1
    reload = signal.SIGUSR2
    notes = (
        "HAProxy has one worker, which runs no code of yours: what hangs is the server behind it. If"
        " its worker is killed, its master ends too, by default; the benchmark starts it again"
    )

    def __init__(self) -> None:
        self._backend: harness.Program | None = None

    def missing(self) -> str:
        return "" if harness.find("haproxy") else "haproxy (Debian)"

    def arguments(self, port: int, directory: Path) -> list[str]:
        config = directory / "haproxy.cfg"
        if self._backend is None:
            (directory / "app.py").write_text(_WSGI_APP)
            (directory / "backend.py").write_text(_BACKEND)
            backend = harness.free_port()
            command = [sys.executable, "backend.py", str(backend)]
            self._backend = harness.Program(command, directory / "backend.log", cwd=directory)
            config.write_text(_HAPROXY.format(port=port, backend=backend, limit=LIMIT))
        return [harness.find("haproxy"), "-W", "-f", str(config)]

    def close(self) -> None:
        """Stop the server behind it."""
        if self._backend is not None:
            self._backend.stop()


class Redis(Contender):
    """Redis, with scripts: sums without a pause, and one that never ends."""

    name = "Redis"
    settings = f"lua-time-limit {LIMIT * 1000}"
    workers_wanted = 0
    reload = None
    unhang = b"SCRIPT KILL\r\n"
    notes = (
        "Redis is one process, so there is no worker to kill, and no code of yours to load anew. A script"
        " that hangs keeps all others waiting; after its time limit they read BUSY, until a client"
        " sends SCRIPT KILL, as the benchmark does after twice that time"
    )

    def missing(self) -> str:
        return "" if harness.find("redis-server") else "redis-server (Debian)"

    def arguments(self, port: int, directory: Path) -> list[str]:
        command = [harness.find("redis-server"), "--port", str(port), "--bind", "127.0.0.1"]
        command += ["--save", "", "--dir", str(directory)]
        return [*command, "--lua-time-limit", str(LIMIT * 1000)]

    def workers(self, pid: int, directory: Path) -> list[int]:
        del pid, directory
        return []

    def request(self, a: int, b: int) -> bytes:
        return b'EVAL "return %d + %d" 0\r\n' % (a, b)

    def hang(self) -> bytes:
        return b'EVAL "while true do end" 0\r\n'

    def is_right(self, received: bytes, total: int) -> bool:
        return received == b":%d\r\n" % total


def contenders() -> list[Contender]:
    """Return all servers, linepool first."""
    return [Contender(), Gunicorn(), Uwsgi(), PhpFpm(), HAProxy(), Redis()]
