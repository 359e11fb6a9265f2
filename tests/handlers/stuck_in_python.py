"""Handlers that hang where an exception can still end them, and handlers that are only slow."""

from __future__ import annotations

import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import common

import linepool
from linepool import Connection, Session
from linepool.protocols.base import Request

FOREVER = 1000.0  # seconds
nap: Callable[[float], str] = common.nap


# -- ways to hang


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
    """Loop."""
    while True:
        pass


@linepool.handler
def stuck_at_a_lock() -> None:
    """Wait for a lock that is never released."""
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()


@linepool.handler
def stuck_in_a_regex() -> None:
    """Match a pattern that backtracks for a very long time."""
    re.match(r"(a+)+$", "a" * 64 + "b")


@linepool.handler
def stuck_behind_except() -> None:
    """Try again after any ``Exception``."""
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
def nap_until(path: str) -> str:
    """Be slow until there is a file."""
    while not os.access(path, os.F_OK):
        time.sleep(0.01)
    return "awake"


@linepool.handler(timeout=0)
def timeless_until(path: str) -> str:
    """Be slow until there is a file, with no deadline at all."""
    return nap_until(path)


@linepool.handler
def extended(more: float, seconds: float, connection: Connection) -> str:
    """Be slow, with a deadline that the handler has moved."""
    connection.extend(more)
    return nap(seconds)


@linepool.handler
def tidy(connection: Connection) -> None:
    """Clean up at the deadline, visibly to the client."""
    try:
        time.sleep(FOREVER)
    finally:
        connection.push("tidied up")


# -- streams


@linepool.handler
def stuck_in_a_stream() -> Iterator[str]:
    """Send two lines, then hang."""
    yield "one"
    yield "two"
    time.sleep(FOREVER)


# -- middleware


@linepool.handler
def held_up() -> None:
    """Do nothing; the middleware around it hangs."""


@linepool.middleware
def hold_up(request: Request, session: Session, call_next: Callable[[Request], Any]) -> Any:
    """Hang before one command."""
    if request.verb == b"HELD_UP":
        time.sleep(FOREVER)
    return call_next(request)
