"""The servers, the cases that each takes part in, and their command lines.

All servers listen on a port of 127.0.0.1 and run as children of the benchmark, each in its own
directory; a system service of the same name is not touched.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path

from attrs import frozen

from benchmarks import harness
from benchmarks.harness import find
from benchmarks.speed import cases
from benchmarks.speed.cases import PROCESSES, Case
from linepool import core

OURS = "linepool"
PURE = f"{OURS} pure"
MANY = f"{OURS}, 64 workers"
ONE = f"{OURS}, 1 worker"
KEPT = f"{OURS}, never parked"
UNTIMED = f"{OURS}, no deadlines"
UNGUARDED = f"{OURS}'s handlers unguarded"
UVLOOPS = ("uvloop", f"uvloop x{PROCESSES}")
STREAMS = f"asyncio streams x{PROCESSES}"
THREADS = "socketserver threads"
VARIANTS = (MANY, ONE, KEPT, UNTIMED, UNGUARDED)
C_EPOLL = "C epoll"

_MAIN = (*cases.CLOSED, *cases.RATES)
_COSTS = ("pp64", "pl128")  # those that show what isolation costs
_PURE = {core.VARIABLE: "1"}
_FOR_BLOCKING = f"a process per connection; with a connection per request, {PROCESSES}"

_UNPRIVILEGED = "nobody"  # memcached does not run as root
_VALUE = b"0123456789abcdef" * 2  # 32 bytes
_KEY = b"key:__rand_int__"  # the key that redis-benchmark gets


@frozen
class Exchange:
    """One request and its reply.

    Attributes:
        ends: The end of a longer reply, which ``reply`` is then the beginning of.
        is_sum: Under load, each request is another sum.
    """

    request: bytes
    reply: bytes
    ends: bytes = b""
    is_sum: bool = False

    def once(self, port: int) -> bytes:
        """Send the request on a new connection and return the whole reply.

        Raises:
            OSError: The server does not listen, or did not reply.
            harness.BenchmarkError: The reply was wrong.
        """
        with socket.create_connection(("127.0.0.1", port), 5.0) as client:
            client.sendall(self.request)
            reply = b""
            while not reply.endswith(self.ends or self.reply):
                got = client.recv(65536)
                if not got:
                    break
                reply += got
        if not (reply.startswith(self.reply) and reply.endswith(self.ends)):
            raise harness.BenchmarkError(f"unexpected reply to {self.request!r}: {reply!r}")
        return reply


_GIVEN = len(_VALUE), _VALUE
SUM = Exchange(b"ADD 1 2\n", b"3\n", is_sum=True)
_NOTE = Exchange(b"NOTE 7\n", b"7\n")
_JSON_RPC = Exchange(
    b'{"jsonrpc":"2.0","method":"add","params":[1,2],"id":1}\n',
    b'{"jsonrpc":"2.0","result":3,"id":1}\n',
)
_HTTP = Exchange(
    b"GET /add?a=1&b=2 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n",
    ends=b"\r\n\r\n3\n",
)
_MEMCACHED_GET = Exchange(b"get key\r\n", b"VALUE key 0 %d\r\n%b\r\nEND\r\n" % _GIVEN)
_MEMCACHED_SET = Exchange(b"set key 0 0 %d\r\n%b\r\n" % _GIVEN, b"STORED\r\n")
_REDIS_GET = Exchange(b"GET %b\r\n" % _KEY, b"$%d\r\n%b\r\n" % _GIVEN)
_REDIS_SET = Exchange(b"SET %b %b\r\n" % (_KEY, _VALUE), b"+OK\r\n")


def _nothing() -> str:
    return ""


def _absent(program: str, package: str) -> Callable[[], str]:
    return lambda: "" if find(program) else package


def _first(*questions: Callable[[], str]) -> Callable[[], str]:
    return lambda: next((answer for one in questions if (answer := one())), "")


_REDIS_BENCHMARK = _absent("redis-benchmark", "Debian: redis-tools")


@frozen(kw_only=True)
class Contender:
    """A server.

    Attributes:
        cases: The names of the cases that it takes part in.
        settings: Its settings, for the report.
        arguments: Returns the command line for a port and a case.
        exchange: The request under load, and its reply.
        before: A request that is sent once, before the load.
        ready_text: A text in its log when it is ready; "": it is ready once it replies.
        missing: Returns what must be installed; "": nothing.
        version: Returns its version, with that of its platform.
        environment: Additional environment variables.
        is_extra: Whether the short mode leaves it out.
    """

    name: str
    cases: Sequence[str]
    settings: str
    arguments: Callable[[int, Case], list[str]]
    exchange: Exchange
    before: Exchange | None = None
    ready_text: str = "ready"
    missing: Callable[[], str] = _nothing
    version: Callable[[], str] = _nothing
    environment: Mapping[str, str] = {}
    is_extra: bool = False


def reference(case: str) -> str:
    """Return the server of a case that the others are compared with, besides linepool; "": none."""
    if case in ("memcached", "redis"):
        return case
    return C_EPOLL if case in _MAIN else ""


def all_contenders(cserver: Path, linepool_options: Sequence[str]) -> list[Contender]:
    """Return every server that can be compared, linepool first.

    Args:
        cserver: The path that targets/cserver.c will be compiled to.
        linepool_options: Additional options for linepool.
    """
    return [
        *_linepool(list(linepool_options)),
        *_in_c(cserver),
        *_asyncio(),
        *_frameworks(),
        *_http(),
        _memcached(),
        *_memcached_in_python(),
        _redis(),
    ]


def _linepool(options: list[str]) -> list[Contender]:
    lines, sessions = harness.TARGETS / "lines_app.py", harness.TARGETS / "session_app.py"
    calculator = harness.EXAMPLES / "calculator_rpc/calculator.py"
    memcached = harness.EXAMPLES / "memcached/memcached.py"
    redis = harness.EXAMPLES / "redis/redis_server.py"
    lmdb = _lacking("lmdb")
    talks = {
        lines: (SUM, None, _nothing),
        sessions: (SUM, None, _nothing),
        calculator: (_JSON_RPC, None, _nothing),
        memcached: (_MEMCACHED_GET, _MEMCACHED_SET, lmdb),
        redis: (_REDIS_GET, _REDIS_SET, _first(lmdb, _REDIS_BENCHMARK)),
    }

    def serving(
        name: str, taken: Sequence[str], file: Path, *more: str, workers: int = PROCESSES
    ) -> Contender:
        settings = [f"--workers={workers}", *more, *options]
        exchange, before, missing = talks[file]
        exchange = _NOTE if taken == cases.WRITING else exchange
        is_pure = name == PURE

        def arguments(port: int, _case: Case) -> list[str]:
            command = [sys.executable, "-m", "linepool", "run", str(file), "--control", "control"]
            return [*command, f"--bind=127.0.0.1:{port}", *settings]

        return Contender(
            name=name,
            cases=taken,
            settings=" ".join([file.name, *settings, *([f"{core.VARIABLE}=1"] if is_pure else [])]),
            arguments=arguments,
            exchange=exchange,
            before=before,
            ready_text="ready:",
            missing=_first(_not_compiled, missing) if is_pure else missing,
            version=lambda: (
                core.about.replace(core.described, "pure Python") if is_pure else core.about
            ),
            environment=_PURE if is_pure else {},
        )

    idle = ("--park-after=3600", "--hot-connections=200")  # one worker may hold all connections
    return [
        serving(OURS, (*_MAIN, "parked", "blocked", *cases.RPC), lines),
        serving(PURE, _MAIN, lines),
        serving(OURS, cases.SESSION, sessions),
        serving(PURE, cases.SESSION, sessions),
        serving(OURS, cases.WRITING, sessions),
        serving(PURE, cases.WRITING, sessions),
        serving(OURS, ["memcached"], memcached),
        serving(PURE, ["memcached"], memcached),
        serving(OURS, ["redis"], redis),
        serving(PURE, ["redis"], redis),
        serving(f"{OURS} JSON-RPC", cases.RPC, calculator),
        serving(KEPT, ["parked"], lines, *idle),
        serving(UNTIMED, _COSTS, lines, "--request-timeout=0"),
        serving(ONE, cases.RATES, lines, workers=1),
        serving(MANY, ["pp64", *cases.RATES], lines, workers=64),
        _unguarded(),
    ]


def _unguarded() -> Contender:
    def arguments(port: int, _case: Case) -> list[str]:
        return [sys.executable, _target("unguarded.py"), str(port)]

    return Contender(
        name=UNGUARDED,
        cases=_COSTS,
        settings="linepool's own protocol code (pure Python) in one process on uvloop",
        arguments=arguments,
        exchange=SUM,
        missing=_lacking("uvloop"),
    )


def _not_compiled() -> str:
    return "" if core.compiled else f"the compiled core, to compare with ({core.why_pure})"


def _in_c(cserver: Path) -> list[Contender]:
    def epoll(port: int, _case: Case) -> list[str]:
        return [str(cserver), "-m", "epoll", "-p", str(PROCESSES), str(port)]

    def prefork(port: int, case: Case) -> list[str]:
        return [str(cserver), "-m", "prefork", "-p", str(case.blocking_processes), str(port)]

    return [
        Contender(
            name=name,
            cases=taken,
            settings=settings,
            arguments=arguments,
            exchange=SUM,
            missing=_absent("cc", "Debian: gcc"),
            version=_first_line("cc", "--version"),
            is_extra=name != C_EPOLL,
        )
        for name, taken, settings, arguments in [
            (C_EPOLL, _MAIN, f"{PROCESSES} processes, SO_REUSEPORT", epoll),
            ("C prefork", cases.COMPARED, _FOR_BLOCKING, prefork),
        ]
    ]


def _asyncio() -> list[Contender]:
    def serving(
        name: str, taken: Sequence[str], loop: str, style: str, processes: int
    ) -> Contender:
        def arguments(port: int, _case: Case) -> list[str]:
            command = [sys.executable, _target("asyncio_lines.py"), "--loop", loop]
            return [*command, "--style", style, f"--processes={processes}", f"--port={port}"]

        return Contender(
            name=name,
            cases=taken,
            settings=f"{style}, {processes} process{'es' * (processes > 1)}",
            arguments=arguments,
            exchange=_NOTE if taken == cases.WRITING else SUM,
            missing=_lacking(loop),
            version=_release("uvloop") if loop == "uvloop" else _nothing,
            is_extra=taken == cases.COMPARED,
        )

    return [
        *(
            serving(name, taken, "uvloop", style, processes)
            for taken, style in [
                ((*_MAIN, "parked", "blocked"), "protocol"),
                (cases.SESSION, "session"),
                (cases.WRITING, "session"),
            ]
            for name, processes in zip(UVLOOPS, (1, PROCESSES), strict=True)
        ),
        serving(f"asyncio x{PROCESSES}", cases.COMPARED, "asyncio", "protocol", PROCESSES),
        serving(STREAMS, (*_MAIN, "blocked"), "asyncio", "streams", PROCESSES),
    ]


def _frameworks() -> list[Contender]:
    def gevent(port: int, _case: Case) -> list[str]:
        return [sys.executable, _target("gevent_lines.py"), str(port), str(PROCESSES)]

    def twisted(port: int, _case: Case) -> list[str]:
        return [sys.executable, _target("twisted_lines.py"), str(port), str(PROCESSES)]

    def threading(port: int, _case: Case) -> list[str]:
        return [sys.executable, _target("socketserver_lines.py"), str(port)]

    def net_server(port: int, case: Case) -> list[str]:
        count = case.blocking_processes
        # min_spare_servers 0 keeps it at `count`; max_servers must exceed max_spare_servers.
        sizes = (count, count + 1, 0, count)
        return ["perl", _target("prefork.pl"), str(port), *map(str, sizes)]

    two = f"{PROCESSES} processes"
    shipped = "request_queue_size = 1024, disable_nagle_algorithm"
    return [
        Contender(
            name=name,
            cases=(*cases.COMPARED, "blocked") if name == THREADS else cases.COMPARED,
            settings=settings,
            arguments=arguments,
            exchange=SUM,
            missing=missing,
            version=version,
            is_extra=name != THREADS,
        )
        for name, settings, arguments, missing, version in [
            (
                f"gevent x{PROCESSES}",
                f"StreamServer, {two}",
                gevent,
                _lacking("gevent"),
                _release("gevent"),
            ),
            (
                f"Twisted x{PROCESSES}",
                f"LineReceiver, {two}",
                twisted,
                _lacking("twisted"),
                _release("Twisted"),
            ),
            (THREADS, shipped, threading, _nothing, _nothing),
            (
                "Net::Server::PreFork",
                _FOR_BLOCKING,
                net_server,
                lambda: "" if _net_server() else "Debian: libnet-server-perl",
                _net_server,
            ),
        ]
    ]


def _http() -> list[Contender]:
    app = ["--chdir", str(harness.TARGETS)]
    module = "wsgi_app:application"

    def sync(port: int, _case: Case) -> list[str]:
        command = [sys.executable, "-m", "gunicorn", "--bind", f"127.0.0.1:{port}", *app]
        # All gunicorns of a user would share one control socket, in the home directory.
        return [*command, "--workers", str(PROCESSES), "--no-control-socket", module]

    def gthread(port: int, case: Case) -> list[str]:
        *command, _module = sync(port, case)
        return [*command, "--threads", "4", module]

    def uwsgi(port: int, case: Case) -> list[str]:
        kind = "--http-socket" if case.mode == "connect" else "--http11-socket"
        command = [find("uwsgi"), kind, f"127.0.0.1:{port}", "--processes", str(PROCESSES), *app]
        return [*command, "--module", module, "--master", "--need-app", "--die-on-term", "-L"]

    gunicorn = (_lacking("gunicorn"), _release("gunicorn"))
    return [
        Contender(
            name=name,
            cases=taken,
            settings=f"{PROCESSES} processes{settings}",
            arguments=arguments,
            exchange=_HTTP,
            ready_text="",
            missing=missing,
            version=version,
        )
        for name, settings, arguments, (missing, version), taken in [
            ("gunicorn sync", "; it closes each connection", sync, gunicorn, cases.RPC_CONNECTING),
            ("gunicorn gthread", " of 4 threads", gthread, gunicorn, cases.RPC),
            (
                "uWSGI",
                ", --master, no log; http11-socket for kept connections, otherwise http-socket",
                uwsgi,
                (_absent("uwsgi", "PyPI: uwsgi"), _release("uWSGI")),
                cases.RPC,
            ),
        ]
    ]


def _memcached() -> Contender:
    def arguments(port: int, _case: Case) -> list[str]:
        user = ["-u", _UNPRIVILEGED] if os.geteuid() == 0 else []
        return [find("memcached"), "-l", "127.0.0.1", "-p", str(port), *user]

    return Contender(
        name="memcached",
        cases=["memcached"],
        settings="as shipped: 4 threads",
        arguments=arguments,
        exchange=_MEMCACHED_GET,
        before=_MEMCACHED_SET,
        ready_text="",
        missing=_absent("memcached", "Debian: memcached"),
        version=_first_line("memcached", "--version"),
    )


def _memcached_in_python() -> list[Contender]:
    def serving(loop: str, style: str) -> Callable[[int, Case], list[str]]:
        def arguments(port: int, _case: Case) -> list[str]:
            command = [sys.executable, _target("asyncio_memcached.py"), "--loop", loop]
            return [*command, "--style", style, "--port", str(port)]

        return arguments

    return [
        Contender(
            name=name,
            cases=["memcached"],
            settings=f"get and set on a dict, {style}, 1 process",
            arguments=serving(loop, style),
            exchange=_MEMCACHED_GET,
            before=_MEMCACHED_SET,
            missing=_lacking(loop),
            version=_release("uvloop") if loop == "uvloop" else _nothing,
        )
        for name, loop, style in [
            ("uvloop", "uvloop", "protocol"),
            ("asyncio streams", "asyncio", "streams"),
        ]
    ]


def _redis() -> Contender:
    def arguments(port: int, _case: Case) -> list[str]:
        return [find("redis-server"), "--bind", "127.0.0.1", "--port", str(port), "--save", ""]

    return Contender(
        name="redis",
        cases=["redis"],
        settings="as shipped, but saves nothing",
        arguments=arguments,
        exchange=_REDIS_GET,
        before=_REDIS_SET,
        ready_text="",
        missing=_first(_absent("redis-server", "Debian: redis-server"), _REDIS_BENCHMARK),
        version=_first_line("redis-server", "--version"),
    )


def _target(name: str) -> str:
    return str(harness.TARGETS / name)


def _lacking(module: str) -> Callable[[], str]:
    return lambda: f"PyPI: {module}" if harness.module_missing(module) else ""


def _release(package: str) -> Callable[[], str]:
    return lambda: f"{package} {metadata.version(package)}"


def _first_line(program: str, *options: str) -> Callable[[], str]:
    """Return a function that runs a program and returns the first line of its output."""

    def version() -> str:
        done = subprocess.run([find(program), *options], capture_output=True, text=True, check=True)
        return done.stdout.split("\n", 1)[0].strip()

    return version


def _net_server() -> str:
    """Return the versions of Net::Server and Perl; "" if it is not installed."""
    code = 'printf "Net::Server %s on Perl %vd", Net::Server->VERSION, $^V'
    command = [find("perl") or "false", "-MNet::Server::PreFork", "-e", code]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout
