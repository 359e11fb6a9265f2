"""The servers of pool_burst.py: their settings, command lines and requests.

All listen on a free port of 127.0.0.1 and run as children of the benchmark, each from files in its own
directory; a system service of the same name is not touched.
"""

from __future__ import annotations

import os
import signal
import stat
import struct
import sys
from abc import ABC, abstractmethod
from pathlib import Path

from benchmarks import harness
from benchmarks.harness import find

MIN, MAX = 2, 32
SPARE = 2  # idle processes to keep, as minimum and maximum, where a server has such settings
_UNPRIVILEGED = "www-data"  # what Debian runs web servers as; needed when started by root


class Peer(ABC):
    """A server that sizes its own pool.

    Attributes:
        name: Its name in the table and the plot.
        floor: The largest pool that its settings permit when it is idle.
        replies_in_lines: The reply is one line; otherwise it ends with the connection.
        stop_signal: The signal that stops it gracefully.
    """

    name: str
    floor = MIN
    replies_in_lines = False
    stop_signal: int = signal.SIGTERM

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.port = harness.free_port()
        self.request = b"SLEEP %d\n" % (seconds * 1000)

    @property
    @abstractmethod
    def settings(self) -> str:
        """Its settings, for the table."""

    @abstractmethod
    def missing(self) -> str:
        """Return what must be installed; "": nothing."""

    @abstractmethod
    def arguments(self, directory: Path) -> list[str]:
        """Write its files to its own directory and return the command line."""

    def helpers(self, master: int, directory: Path) -> set[int]:
        """Return the children of the master that are not workers."""
        del master, directory
        return set()


class Linepool(Peer):
    """linepool, with default settings except for the pool size."""

    name = "linepool"
    replies_in_lines = True

    def __init__(self, seconds: float, more: list[str]) -> None:
        super().__init__(seconds)
        self._options = [f"--max-spare={SPARE}", *more]

    @property
    def settings(self) -> str:
        return " ".join([f"--workers={MIN}:{MAX}", *self._options])

    def missing(self) -> str:
        return ""

    def arguments(self, directory: Path) -> list[str]:
        app = str(harness.TARGETS / "lines_app.py")
        arguments = [sys.executable, "-m", "linepool", "run", app]
        arguments += ["--bind", f"127.0.0.1:{self.port}", "--workers", f"{MIN}:{MAX}"]
        return [*arguments, "--control", str(directory / "control"), *self._options]

    def helpers(self, master: int, directory: Path) -> set[int]:
        return set(harness.children(master)).difference(
            harness.linepool_workers(directory / "control")
        )


class NetServer(Peer):
    """Net::Server::PreFork."""

    name = "Net::Server::PreFork"
    replies_in_lines = True

    @property
    def settings(self) -> str:
        return (
            f"min_servers {MIN}, min_spare_servers {SPARE}, max_spare_servers {SPARE}, listen 1024"
        )

    def missing(self) -> str:
        found = any(
            (Path(place) / "Net/Server/PreFork.pm").exists()
            for place in ("/usr/share/perl5", "/usr/local/share/perl5", "/usr/lib/perl5")
        )
        return "" if found else "Debian: libnet-server-perl"

    def arguments(self, directory: Path) -> list[str]:
        del directory
        numbers = (self.port, MIN, MAX, SPARE, SPARE)
        return ["perl", str(harness.TARGETS / "prefork.pl"), *map(str, numbers)]


class Apache(Peer):
    """Apache with the prefork MPM and a CGI script that sleeps."""

    name = "Apache prefork"
    floor = SPARE + 1  # it requires MaxSpareServers > MinSpareServers
    _modules = Path("/usr/lib/apache2/modules")

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.request = _http_request("/sleep")

    @property
    def settings(self) -> str:
        return f"StartServers {MIN}, MinSpareServers {SPARE}, MaxSpareServers {SPARE + 1}"

    def missing(self) -> str:
        found = find("apache2") and (self._modules / "mod_mpm_prefork.so").exists()
        return "" if found else "Debian: apache2-bin"

    def arguments(self, directory: Path) -> list[str]:
        script = directory / "sleep"
        script.write_text(
            f"#!/bin/sh\nsleep {self.seconds}\nprintf 'Content-Type: text/plain\\n\\nOK\\n'\n"
        )
        make_public(script)
        lines = [
            f"ServerRoot {directory}",
            f"DefaultRuntimeDir {directory}",
            f"PidFile {directory}/pid",
            f"ErrorLog {directory}/error.log",
            "ServerName 127.0.0.1",
            f"Listen 127.0.0.1:{self.port}",
            *(
                f"LoadModule {name}_module {self._modules}/mod_{name}.so"
                for name in ("mpm_prefork", "authz_core", "alias", "cgi")
            ),
            f"StartServers {MIN}",
            f"MinSpareServers {SPARE}",
            f"MaxSpareServers {SPARE + 1}",
            f"ServerLimit {MAX}",
            f"MaxRequestWorkers {MAX}",
            "KeepAlive Off",
            f"ScriptAlias /sleep {script}",
        ]
        if os.geteuid() == 0:
            lines += [f"User {_UNPRIVILEGED}", f"Group {_UNPRIVILEGED}"]
        config = directory / "apache.conf"
        config.write_text("\n".join(lines) + "\n")
        return [find("apache2"), "-d", str(directory), "-f", str(config), "-DFOREGROUND"]


class Uwsgi(Peer):
    """uWSGI with one of its `cheaper` algorithms."""

    def __init__(self, seconds: float, algorithm: str) -> None:
        super().__init__(seconds)
        self.request = _http_request(f"/sleep?ms={seconds * 1000:.0f}")
        self._algorithm = algorithm
        self.name = f"uWSGI cheaper {algorithm}"

    @property
    def settings(self) -> str:
        return f"cheaper {MIN}, cheaper-algo {self._algorithm}"

    def missing(self) -> str:
        return "" if find("uwsgi") else "PyPI: uwsgi"

    def arguments(self, directory: Path) -> list[str]:
        del directory
        arguments = [find("uwsgi"), "--http-socket", f"127.0.0.1:{self.port}", "--master"]
        arguments += ["--workers", str(MAX), "--cheaper", str(MIN)]
        arguments += ["--cheaper-algo", self._algorithm]
        arguments += ["--wsgi-file", str(harness.TARGETS / "wsgi_app.py"), "--need-app"]
        return [*arguments, "--die-on-term", "--disable-logging"]


class PhpFpm(Peer):
    """PHP-FPM, pm = dynamic."""

    name = "PHP-FPM dynamic"

    @property
    def settings(self) -> str:
        return f"start_servers {MIN}, min_spare_servers {SPARE}, max_spare_servers {SPARE}"

    def missing(self) -> str:
        return "" if php_fpm() else "Debian: php-fpm"

    def arguments(self, directory: Path) -> list[str]:
        script = directory / "sleep.php"
        script.write_text(f'<?php usleep({self.seconds * 1e6:.0f}); echo "OK\\n";')
        make_public(script)
        self.request = fastcgi_request(script)
        lines = [
            "[global]",
            f"error_log = {directory}/error.log",
            "daemonize = no",
            "[pool]",
            f"listen = 127.0.0.1:{self.port}",
            "pm = dynamic",
            f"pm.max_children = {MAX}",
            f"pm.start_servers = {MIN}",
            f"pm.min_spare_servers = {SPARE}",
            f"pm.max_spare_servers = {SPARE}",
        ]
        if os.geteuid() == 0:
            lines += [f"user = {_UNPRIVILEGED}", f"group = {_UNPRIVILEGED}"]
        config = directory / "fpm.conf"
        config.write_text("\n".join(lines) + "\n")
        return [php_fpm(), "--nodaemonize", "--no-php-ini", "--fpm-config", str(config)]


def php_fpm() -> str:
    """Return the path of PHP-FPM, whose name has its version; "": it is not installed."""
    for place in ("/usr/sbin", "/usr/bin"):
        for path in sorted(Path(place).glob("php-fpm[0-9]*"), reverse=True):
            return str(path)
    return find("php-fpm")


def all_peers(seconds: float, linepool_options: list[str]) -> list[Peer]:
    """Return all servers, linepool first."""
    return [
        Linepool(seconds, linepool_options),
        NetServer(seconds),
        Apache(seconds),
        PhpFpm(seconds),
        Uwsgi(seconds, "spare"),
        Uwsgi(seconds, "backlog"),
        Uwsgi(seconds, "busyness"),
    ]


def _http_request(path: str) -> bytes:
    return f"GET {path} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n".encode()


def make_public(script: Path) -> None:
    """Let a server that has dropped root privileges read and run a script."""
    script.chmod(0o755)
    for directory in script.parents[:2]:
        directory.chmod(directory.stat().st_mode | stat.S_IXOTH | stat.S_IROTH)


def fastcgi_request(script: Path, query: str = "") -> bytes:
    """Return a complete FastCGI request for a script (FastCGI specification, 3.3 and 5)."""
    begin, parameters, body = 1, 4, 5
    responder = struct.pack("!HB5x", 1, 0)  # role; flags 0: close after the reply
    pairs = {"SCRIPT_FILENAME": str(script), "REQUEST_METHOD": "GET", "SERVER_PROTOCOL": "HTTP/1.0"}
    pairs |= {"QUERY_STRING": query} if query else {}
    packed = b"".join(
        bytes((len(name), len(value))) + name.encode() + value.encode()
        for name, value in pairs.items()
    )

    def record(kind: int, content: bytes) -> bytes:
        return struct.pack("!BBHHBx", 1, kind, 1, len(content), 0) + content

    return b"".join(
        (
            record(begin, responder),
            record(parameters, packed),
            record(parameters, b""),
            record(body, b""),
        )
    )
