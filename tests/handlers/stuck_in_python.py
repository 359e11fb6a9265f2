"""Handlers that take too long where Python can still reach them, and handlers that are only slow."""

from __future__ import annotations

import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import linepool
from linepool import Connection, Session
from linepool.protocols.base import Request

FOREVER = 1000.0  # seconds


@linepool.handler
def add(a: int, b: int) -> int:
    """Add two whole numbers."""
    return a + b


@linepool.handler
def pid() -> int:
    """Return the worker's pid."""
    return os.getpid()


@linepool.handler
def nap(seconds: float) -> str:
    """Be slow."""
    time.sleep(seconds)
    return "awake"


# -- ways to be stuck


@linepool.handler
def stuck_asleep() -> None:
    """Sleep."""
    time.sleep(FOREVER)


@linepool.handler
def stuck_in_recv() -> None:
    """Wait for a peer that never answers."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.recv(1)


@linepool.handler
def stuck_in_a_loop() -> None:
    """Run in circles."""
    while True:
        pass


@linepool.handler
def stuck_at_a_lock() -> None:
    """Wait for a lock that nobody releases."""
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()


@linepool.handler
def stuck_in_a_regex() -> None:
    """Match a pattern that backtracks without end."""
    re.match(r"(a+)+$", "a" * 64 + "b")


@linepool.handler
def stuck_behind_except() -> None:
    """Try again, whatever goes wrong."""
    while True:
        try:
            time.sleep(FOREVER)
        except Exception:  # noqa: BLE001 - that is the point
            continue


# -- deadlines


@linepool.handler(timeout=FOREVER)
def patient(seconds: float) -> str:
    """Be slow, with a longer deadline."""
    return nap(seconds)


@linepool.handler(timeout=0.1)
def hasty(seconds: float) -> str:
    """Be slow, with a shorter deadline."""
    return nap(seconds)


@linepool.handler(timeout=0)
def timeless(seconds: float) -> str:
    """Be slow, with no deadline at all."""
    return nap(seconds)


@linepool.handler
def extended(more: float, seconds: float, connection: Connection) -> str:
    """Be slow, with a deadline that was moved."""
    connection.extend(more)
    return nap(seconds)


@linepool.handler
def tidy(connection: Connection) -> None:
    """Clean up when the time is up, in view of the client."""
    try:
        time.sleep(FOREVER)
    finally:
        connection.push("tidied up")


# -- streams and large replies


@linepool.handler
def stuck_in_a_stream() -> Iterator[str]:
    """Send two lines and then none."""
    yield "one"
    yield "two"
    time.sleep(FOREVER)


@linepool.handler
def flood() -> Iterator[str]:
    """Send lines without end."""
    while True:
        yield "x" * 1000


@linepool.handler
def stream(lines: int, size: int) -> Iterator[bytes]:
    """Send long lines."""
    for _ in range(lines):
        yield b"x" * size


@linepool.handler
def big(size: int) -> bytes:
    """Return a long line."""
    return b"x" * size


# -- middleware


@linepool.handler
def held_up() -> None:
    """Do nothing; the middleware is stuck ahead of it."""


@linepool.middleware
def hold_up(request: Request, session: Session, call_next: Callable[[Request], Any]) -> Any:
    """Be stuck around one command."""
    if request.verb == b"HELD_UP":
        time.sleep(FOREVER)
    return call_next(request)
