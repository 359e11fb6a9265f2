"""Requests that hang end on time, and no other client notices.

One client sends one hanging request after the other. At the deadline the server raises
RequestTimeout in the handler; if that does not help, it kills the worker at deadline + grace.
Meanwhile other clients send 10,000 requests, half of the clients on a connection for each.
"""

from __future__ import annotations

import ast
import contextlib
import itertools
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from attrs import Factory, define, frozen

from linepool.testing import Peer
from tests.torture.table import show_table

_APP = Path(__file__).with_name("stuck_app.py")
_TIMEOUT, _GRACE = 1.0, 0.5  # seconds
_MAX_LATE_MS = 50.0
_WORKERS = 8
_CLIENTS = 4
_REQUESTS = 10_000


@frozen
class Case:
    """A way to hang: the command, the function that serves it, and what that does."""

    command: str
    function: str
    what: str


@frozen
class End:
    """How a hanging request ended: after how long, what the client read, by a kill or not."""

    case: Case
    seconds: float
    read: str
    killed: bool
    is_logged: bool

    @property
    def due(self) -> float:
        """When it had to end, in seconds."""
        return _TIMEOUT + _GRACE * self.killed

    @property
    def late_ms(self) -> float:
        """How long after that it ended."""
        return (self.seconds - self.due) * 1000

    def row(self) -> list[str]:
        """Return what the table shows."""
        return [
            self.case.what,
            "kill" if self.killed else "RequestTimeout",
            f"{self.due:g} s + {self.late_ms:.0f} ms",
            self.read,
            "yes" if self.is_logged else "no",
        ]

    def faults(self) -> list[str]:
        """Return what is wrong with it."""
        found = {
            "ended early": self.seconds < _TIMEOUT,
            "ended late": self.late_ms > _MAX_LATE_MS,
            "gave its client no error line": not self.read.startswith("SERVER_ERROR"),
            "is not named in the log": not self.is_logged,
        }
        return [f"{self.case.command} {fault}" for fault, is_so in found.items() if is_so]


@define
class Load:
    """The requests of all other clients."""

    sent: int = 0
    correct: int = 0
    slowest: float = 0.0
    faults: Counter[str] = Factory(Counter)
    lock: threading.Lock = Factory(threading.Lock)

    def note(self, fault: str, seconds: float) -> None:
        with self.lock:
            self.sent += 1
            self.correct += not fault
            self.slowest = max(self.slowest, seconds)
            if fault:
                self.faults[fault] += 1


def test_requests_that_hang_end_on_time_and_cost_no_other_request(launch):
    cases = _cases()
    options = ["--workers", str(_WORKERS), "--request-timeout", str(_TIMEOUT)]
    server = launch(str(_APP), *options, "--kill-grace", str(_GRACE))
    load = Load()
    with _under_load(server, load, len(cases) * (_TIMEOUT + _GRACE)):
        ends = [_hang(server, case) for case in cases]
    counters = server.status()["counters"]
    print(f"\nrequest_timeout {_TIMEOUT:g} s, kill_grace {_GRACE:g} s\n")
    headings = ["hangs in", "ended by", "after", "the client read", "in the log"]
    show_table(headings, [end.row() for end in ends])
    print(
        f"\nother requests: {load.correct} of {load.sent} answered correctly, the slowest in"
        f" {load.slowest * 1000:.0f} ms; timeouts={counters['timeouts']} kills={counters['kills']}"
        f" crashes={counters['crashes']}"
    )
    assert [fault for end in ends for fault in end.faults()] == []
    assert not load.faults
    assert load.correct == _REQUESTS


def _cases() -> list[Case]:
    """Return the app's handlers that have a command given by name: these hang."""
    tree = ast.parse(_APP.read_text())
    return [
        Case(ast.literal_eval(call.args[0]), node.name, ast.get_docstring(node) or "")
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
        for call in node.decorator_list
        if isinstance(call, ast.Call)
    ]


@contextlib.contextmanager
def _under_load(server: Any, load: Load, seconds: float) -> Iterator[None]:
    """Have the other clients send their requests while the block runs, and wait for them."""
    each = _REQUESTS // _CLIENTS
    pause = seconds / each * 0.8
    threads = [
        threading.Thread(target=_ask_many, args=(server, load, each, pause, 1 if i % 2 else 100))
        for i in range(_CLIENTS)
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for thread in threads:
            thread.join()


def _ask_many(server: Any, load: Load, count: int, pause: float, per_connection: int) -> None:
    """Run one client that sends ``count`` requests."""
    numbers = iter(range(count))
    for number in numbers:
        try:
            with server.connect() as peer:
                for one in itertools.chain([number], itertools.islice(numbers, per_connection - 1)):
                    began = time.monotonic()
                    reply = peer.ask(f"DOUBLE {one}")
                    fault = "" if reply == str(2 * one) else f"read {reply!r}"
                    load.note(fault, time.monotonic() - began)
                    if fault:
                        break
                    time.sleep(pause)
        except OSError as error:
            load.note(type(error).__name__, 0.0)


def _hang(server: Any, case: Case) -> End:
    """Send one request that hangs, and wait until it ends."""
    with server.connect() as peer:
        pid = _ask(peer, "PID")
        began = time.monotonic()
        read = _ask(peer, case.command)
        seconds = time.monotonic() - began
        killed = _ask(peer, "PID") != pid
    is_logged = False
    with contextlib.suppress(AssertionError):  # it gives up
        is_logged = bool(server.wait_for(case.function))
    return End(case, seconds, read, killed, is_logged)


def _ask(peer: Peer, line: str) -> str:
    """Return the reply, or what came instead."""
    try:
        return peer.ask(line) or "(connection closed)"
    except OSError as error:
        return f"({type(error).__name__})"
