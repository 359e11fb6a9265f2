"""Handlers that many of these apps have, which importing this module registers; and their helpers."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from typing import Any

import linepool


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
    """Sleep for some seconds."""
    time.sleep(seconds)
    return "awake"


@linepool.handler
def say(text: linepool.Rest) -> str:
    """Repeat the rest of the line."""
    return text


@linepool.handler
def big(size: int) -> bytes:
    """Return a long line."""
    return b"x" * size


@linepool.handler
def stream(lines: int, size: int) -> Iterator[bytes]:
    """Send long lines."""
    for _ in range(lines):
        yield b"x" * size


@linepool.handler
def flood() -> Iterator[str]:
    """Send lines without end."""
    while True:
        yield "x" * 1000


def announce() -> str:
    """Announce this process at the test's gate; return the path of the gate."""
    path = os.environ["GATE"]
    with open(f"{path}.bell", "w", encoding="ascii") as bell:
        bell.write(f"{os.getpid()}\n")
    return path


def wait_at_gate() -> None:
    """Announce this process, and wait in a system call until the test opens the gate."""
    gate = os.open(announce(), os.O_RDONLY)
    try:
        os.read(gate, 1)
    finally:
        os.close(gate)


def current_worker() -> Any:
    """Return the worker object of this process."""
    return _caller("Worker")


def current_loop() -> Any:
    """Return the loop of this process's worker, in the schemes that have a parker."""
    return _caller("Loop")


def _caller(name: str) -> Any:
    """Return the object of a class with that name, one of whose methods is being run."""
    frame = sys._getframe()
    while frame.f_back is not None:
        frame = frame.f_back
        found = frame.f_locals.get("self")
        if type(found).__name__ == name:
            return found
    raise LookupError(f"none of the callers is a method of a {name}")
