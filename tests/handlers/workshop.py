"""Handlers for what tests need to happen inside a worker."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Iterator

from common import wait_at_gate

import linepool


@linepool.handler
def put(size: int, data: bytes = linepool.body("size")) -> int:
    """Take a data block and return its length."""
    return len(data)


@linepool.handler
def hold(text: linepool.Rest) -> str:
    """Wait at the gate, then repeat the text."""
    wait_at_gate()
    return text


@linepool.handler
def cling() -> str:
    """Wait at the gate, whatever is raised."""
    while True:
        try:
            wait_at_gate()
        except BaseException:  # noqa: BLE001 - this one is meant to be bad
            continue
        return "let go"


@linepool.handler
def count(to: int) -> Iterator[int]:
    """Count, one number per line."""
    yield from range(1, to + 1)


@linepool.handler
def die(how: int = signal.SIGKILL) -> None:
    """End the worker by a signal."""
    os.kill(os.getpid(), how)


@linepool.handler
def leave(status: int) -> None:
    """Exit without any cleanup."""
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
    """Return the number of objects that the garbage collector ignores."""
    return gc.get_freeze_count()


@linepool.handler
def descriptors() -> list[str]:
    """Return the targets of the open descriptors."""
    return [f"{name} {_target(name)}" for name in sorted(os.listdir("/proc/self/fd"), key=int)]


@linepool.handler
def inherited() -> list[str]:
    """Return the targets of the descriptors of a program that was started without closing any."""
    reader, writer = os.pipe()
    words = ["ls", "-l", "/proc/self/fd"]
    actions = [(os.POSIX_SPAWN_DUP2, writer, 1)]
    child = os.posix_spawn("/bin/ls", words, os.environ, file_actions=actions)
    os.close(writer)
    with open(reader, encoding="utf-8") as output:
        lines = output.read().splitlines()
    os.waitpid(child, 0)
    return [" ".join(line.split()[-3::2]) for line in lines if "->" in line]


def _target(name: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{name}")
    except FileNotFoundError:
        return "the listing itself"
