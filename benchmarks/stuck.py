"""Show how handlers that are stuck end, and that nobody else notices.

One client after the other sends a request that would never end. At the deadline the server raises
RequestTimeout in the handler; if this does not help, it kills the worker at deadline + grace. The
table says which of them ended it, how many milliseconds after it was due, what the client read, and
whether the server's log names the function that was stuck. Meanwhile other clients send 10,000 good
requests, some on connections that they keep, some with a connection for each.
"""

from __future__ import annotations

import ast
import contextlib
import socket
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import harness
from attrs import Factory, define, frozen

_TARGET = harness.TARGETS / "stuck_handlers.py"
_GOAL_MS = 50.0
_REPLY_LIMIT = 15.0  # seconds after which a stuck request counts as never ended
_GOOD_CLIENTS = 4
_WORKERS = 8
_NAMES_WAIT = 1.0  # seconds in which the log may still name the function


@frozen
class Case:
    """A way to be stuck: the command, the function that serves it, and what it does."""

    command: str
    function: str
    what: str


@frozen
class End:
    """How a stuck request ended."""

    case: Case
    seconds: float
    read: str
    killed: bool
    named: bool


@define
class Load:
    """The good requests of all clients."""

    wanted: int
    right: int = 0
    lost: list[str] = Factory(list)
    slowest: float = 0.0
    lock: threading.Lock = Factory(threading.Lock)

    def note(self, fault: str, seconds: float) -> None:
        with self.lock:
            self.right += not fault
            self.slowest = max(self.slowest, seconds)
            if fault:
                self.lost.append(fault)


def _cases() -> list[Case]:
    """Read the ways to be stuck from the target: its handlers that have a name of their own."""
    cases = []
    for node in ast.parse(_TARGET.read_text()).body:
        if isinstance(node, ast.FunctionDef) and isinstance(node.decorator_list[0], ast.Call):
            name = ast.literal_eval(node.decorator_list[0].args[0])
            cases.append(Case(name, node.name, ast.get_docstring(node) or ""))
    return cases


def _ask_good(server: harness.Server, load: Load, count: int, pause: float, keep: int) -> None:
    """Run one client that asks ``count`` good requests, ``keep`` on each connection."""
    number = 0
    while number < count:
        try:
            with server.connect(_REPLY_LIMIT) as sock, sock.makefile("rb") as file:
                for _ in range(min(keep, count - number)):
                    began = time.monotonic()
                    number += 1
                    sock.sendall(b"DOUBLE %d\n" % number)
                    line = file.readline()
                    fault = "" if line == b"%d\n" % (2 * number) else f"read {line!r}"
                    load.note(fault, time.monotonic() - began)
                    if fault:
                        break
                    time.sleep(pause)
        except OSError as error:
            load.note(type(error).__name__, 0.0)


@contextlib.contextmanager
def _under_load(server: harness.Server, load: Load, seconds: float) -> Iterator[None]:
    each = load.wanted // _GOOD_CLIENTS
    threads = [
        threading.Thread(
            target=_ask_good,
            args=(server, load, each, seconds / each * 0.8, 1 if i % 2 else 100),
            daemon=True,
        )
        for i in range(_GOOD_CLIENTS)
    ]
    for thread in threads:
        thread.start()
    yield
    for thread in threads:
        thread.join()


def _get_stuck(server: harness.Server, case: Case) -> End:
    """Send one request that will not end, and wait until it does."""
    logged = len(server.log_text())
    with server.connect(_REPLY_LIMIT) as sock, sock.makefile("rb") as file:
        pid = _ask(sock, file, "PID")
        began = time.monotonic()
        read = _ask(sock, file, case.command)
        seconds = time.monotonic() - began
        killed = _ask(sock, file, "PID") != pid
    return End(case, seconds, read, killed, _is_named(server, case, logged))


def _ask(sock: socket.socket, file: BinaryIO, line: str) -> str:
    """Return the reply, or what came in its place."""
    try:
        sock.sendall(line.encode() + b"\n")
        return file.readline().decode().rstrip() or "(end of the connection)"
    except OSError as error:
        return f"({type(error).__name__})"


def _is_named(server: harness.Server, case: Case, logged: int) -> bool:
    """Whether the log names the function within a moment."""
    with contextlib.suppress(harness.BenchmarkError):
        harness.until(
            "the log names it", lambda: case.function in server.log_text()[logged:], _NAMES_WAIT
        )
        return True
    return False


def _row(end: End, timeout: float, grace: float) -> tuple[str, ...]:
    due = timeout + grace * end.killed
    return (
        end.case.what,
        "kill" if end.killed else "RequestTimeout",
        f"{due:g} s + {(end.seconds - due) * 1000:.0f} ms",
        end.read,
        "yes" if end.named else "no",
    )


def _faults(ends: list[End], load: Load, timeout: float, grace: float) -> list[str]:
    late = [
        f"{end.case.command} ended late"
        for end in ends
        if (end.seconds - timeout - grace * end.killed) * 1000 > _GOAL_MS
    ]
    early = [f"{end.case.command} ended early" for end in ends if end.seconds < timeout]
    unnamed = [f"{end.case.command} is not named in the log" for end in ends if not end.named]
    silent = [
        f"the client of {end.case.command} read no error line"
        for end in ends
        if not end.read.startswith("SERVER_ERROR")
    ]
    lost = [f"{load.wanted - load.right} good requests were lost"] * (load.right != load.wanted)
    return early + late + silent + unnamed + lost


def _run() -> int:
    parser = harness.parser(__doc__)
    parser.add_argument("--timeout", type=float, default=1.0, help="seconds; default: %(default)s")
    parser.add_argument("--grace", type=float, default=0.5, help="seconds; default: %(default)s")
    parser.add_argument("--requests", type=int, default=10_000, help="good ones; %(default)s")
    parser.add_argument("--only", nargs="+", default=[], metavar="COMMAND")
    options = parser.parse_args()
    if "--request-timeout" not in harness.options_of_run():
        raise harness.BenchmarkError("this linepool has no --request-timeout")
    cases = [case for case in _cases() if not options.only or case.command in options.only]
    load = Load(options.requests // _GOOD_CLIENTS * _GOOD_CLIENTS)
    settings = ["--workers", str(_WORKERS), "--request-timeout", str(options.timeout)]
    settings += ["--kill-grace", str(options.grace)]
    expected = len(cases) * (options.timeout + options.grace)
    with (
        tempfile.TemporaryDirectory(prefix="linepool-bench-") as name,
        harness.serving(_TARGET, *settings, directory=Path(name)) as server,
    ):
        with _under_load(server, load, expected):
            ends = [_get_stuck(server, case) for case in cases]
        counters = server.status()["counters"]
    print(
        f"request_timeout {options.timeout:g} s, kill_grace {options.grace:g} s; goal: at most"
        f" {_GOAL_MS:g} ms after it was due; {harness.machine()}\n"
    )
    headings = ["stuck in", "ended by", "after", "the client read", "log names it"]
    print(harness.table(headings, [_row(end, options.timeout, options.grace) for end in ends]))
    print(
        f"\ngood requests meanwhile: {load.right} of {load.wanted} answered rightly, the slowest in"
        f" {load.slowest * 1000:.0f} ms; the server counted timeouts={counters['timeouts']}"
        f" kills={counters['kills']} crashes={counters['crashes']}"
    )
    if load.lost:
        print("what became of the others:", dict(Counter(load.lost)))
    faults = _faults(ends, load, options.timeout, options.grace)
    print("FAILED: " + "; ".join(faults) if faults else "OK")
    return 1 if faults else 0


if __name__ == "__main__":
    harness.main(_run)
