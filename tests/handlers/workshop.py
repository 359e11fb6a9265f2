"""Handlers for all that a test wants to see happen inside a worker."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Iterator

import linepool


def wait_at_gate() -> None:
    """Tell the test that this process is here, and wait until it opens the gate."""
    path = os.environ["GATE"]
    with open(f"{path}.bell", "w", encoding="ascii") as bell:
        bell.write(f"{os.getpid()}\n")
    gate = os.open(path, os.O_RDONLY)
    try:
        os.read(gate, 1)
    finally:
        os.close(gate)


@linepool.handler
def add(a: int, b: int) -> int:
    """Add two whole numbers."""
    return a + b


@linepool.handler
def say(text: linepool.Rest) -> str:
    """Repeat the rest of the line."""
    return text


@linepool.handler
def put(size: int, data: bytes = linepool.body("size")) -> int:
    """Take a data block and return its length."""
    return len(data)


@linepool.handler
def pid() -> int:
    """Return the worker's pid."""
    return os.getpid()


@linepool.handler
def hold(text: linepool.Rest) -> str:
    """Wait at the gate, then repeat the text."""
    wait_at_gate()
    return text


@linepool.handler
def cling() -> str:
    """Wait at the gate, and let no exception end the wait."""
    while True:
        try:
            wait_at_gate()
        except BaseException:  # noqa: BLE001 - this one is meant to be bad
            continue
        return "let go"


@linepool.handler
def big(size: int) -> bytes:
    """Return a long line."""
    return b"x" * size


@linepool.handler
def count(to: int) -> Iterator[int]:
    """Count, one number a line."""
    yield from range(1, to + 1)


@linepool.handler
def flood() -> Iterator[str]:
    """Send lines without end."""
    while True:
        yield "x" * 1000


@linepool.handler
def die(how: int = signal.SIGKILL) -> None:
    """End the worker by a signal."""
    os.kill(os.getpid(), how)


@linepool.handler
def leave(status: int) -> None:
    """End the worker as no program should."""
    os._exit(status)


@linepool.handler
def fail() -> None:
    """Raise an exception."""
    raise ValueError("the workshop failed")


@linepool.handler
def show(text: linepool.Rest) -> None:
    """Print a text to standard output."""
    print(text)


@linepool.handler
def frozen() -> int:
    """Return how many objects the collector leaves alone."""
    return gc.get_freeze_count()


@linepool.handler
def descriptors() -> list[str]:
    """Say where the open descriptors lead."""
    return [f"{name} {_lead(name)}" for name in sorted(os.listdir("/proc/self/fd"), key=int)]


@linepool.handler
def inherited() -> list[str]:
    """Say where the descriptors of a program lead that was started without closing any."""
    reader, writer = os.pipe()
    words = ["ls", "-l", "/proc/self/fd"]
    actions = [(os.POSIX_SPAWN_DUP2, writer, 1)]
    child = os.posix_spawn("/bin/ls", words, os.environ, file_actions=actions)
    os.close(writer)
    with open(reader, encoding="utf-8") as output:
        lines = output.read().splitlines()
    os.waitpid(child, 0)
    return [" ".join(line.split()[-3::2]) for line in lines if "->" in line]


def _lead(name: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{name}")
    except FileNotFoundError:
        return "the listing itself"
