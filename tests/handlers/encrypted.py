"""Handlers for tests of TLS: what a session says, replies of any length, and a command that begins TLS."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import common  # noqa: F401 - registers its handlers

import linepool


@linepool.handler
def tls(session: linepool.Session, name: str) -> str:
    """Return what is known of the connection's encryption, such as its version."""
    return str(getattr(session.tls, name))


@linepool.handler
def remember(word: str, session: linepool.Session) -> str:
    """Return the word before, and remember this one."""
    before: str = session.get("word", "-")
    session["word"] = word
    return before


@linepool.handler
def fill(size: int) -> str:
    """Return a long text."""
    return "x" * size


@linepool.handler
def count(to: int) -> Iterator[int]:
    """Count, one number per line."""
    yield from range(1, to + 1)


@linepool.handler
def push(text: str, connection: linepool.Connection) -> str:
    """Push a text ahead of the reply."""
    connection.push(text)
    return "pushed"


@linepool.handler
def put(size: int, data: bytes = linepool.body("size")) -> int:
    """Take a data block and return its length."""
    return len(data)


@linepool.handler
def starttls() -> linepool.Reply:
    """Begin TLS."""
    return linepool.Reply("go", start_tls=True)


@linepool.handler(timeout=0.2)
def hang() -> None:
    """Hang until the worker is killed."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    while True:
        signal.pause()


@linepool.handler(timeout=0.2)
def doze() -> None:
    """Sleep until RequestTimeout is raised."""
    signal.pause()
