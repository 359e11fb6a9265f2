"""Handlers for connections that go from process to process, and hooks that note whom they meet."""

from __future__ import annotations

import collections
import contextlib
import ctypes
import itertools
import os
import random
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import linepool
from linepool import Connection, Session

_JOURNAL = os.environ.get("JOURNAL", "")
_NAN = struct.pack("d", float("nan"))
_kept: list[object] = []


# -- what a connection remembers


@linepool.handler
def add(a: int, b: int) -> int:
    """Add two whole numbers."""
    return a + b


@linepool.handler
def say(text: linepool.Rest) -> str:
    """Repeat the rest of the line."""
    return text


@linepool.handler
def put(size: int, data: bytes = linepool.body("size")) -> str:
    """Take a data block and return its length and its checksum."""
    return f"{len(data)} {sum(data)}"


@linepool.handler
def pid() -> int:
    """Return the worker's pid."""
    return os.getpid()


@linepool.handler
def remember(text: str, session: Session) -> None:
    """Keep a text."""
    session["text"] = text


@linepool.handler
def recall(session: Session) -> str:
    """Return the text that was kept."""
    return str(session.get("text"))


@linepool.handler
def next_number(session: Session) -> int:
    """Return 1, 2, 3 ..."""
    session["number"] = session.get("number", 0) + 1
    return int(session["number"])


@linepool.handler
def log_in(user: str, session: Session) -> None:
    """Note who it is, and nothing else."""
    session.user = user


@linepool.handler
def who(session: Session) -> str:
    """Return what is known of the connection, however often it has moved."""
    return f"{session.id} {session.peer} {session.listener} {session.user}"


# -- what a connection cannot take along


@linepool.handler
def pin(connection: Connection) -> int:
    """Ask for the live connection."""
    return os.getpid()


@linepool.handler
def spoil(session: Session) -> int:
    """Change a value in place, so that it is no plain data any more."""
    session["bag"] = []
    session["bag"].append(object())
    return os.getpid()


@linepool.handler
def hoard(count: int, session: Session) -> None:
    """Change a value in place, so that it holds more than could be assigned."""
    session["bag"] = []
    session["bag"].extend(range(count))


@linepool.handler
def bag(session: Session) -> str:
    """Return how many things there are, and their sum."""
    return f"{len(session['bag'])} {sum(session['bag'])}"


@linepool.handler
def assign(what: str, session: Session) -> None:
    """Assign what a session does not take."""
    session["bag"] = {"object": object(), "much": "x" * 10_000}[what]


# -- ways to be slow


def _ring() -> str:
    path = os.environ["GATE"]
    with open(f"{path}.bell", "w", encoding="ascii") as bell:
        bell.write(f"{os.getpid()}\n")
    return path


@linepool.handler
def hold() -> str:
    """Wait until the test opens the gate, in a system call."""
    gate = os.open(_ring(), os.O_RDONLY)
    os.read(gate, 1)
    os.close(gate)
    return "let go"


@linepool.handler
def spin() -> str:
    """Wait until the test opens the gate, in Python code that never sleeps."""
    gate = os.open(_ring(), os.O_RDONLY | os.O_NONBLOCK)
    opened = False
    while not opened:
        for _ in range(1000):
            pass
        with contextlib.suppress(BlockingIOError):
            opened = bool(os.read(gate, 1))
    os.close(gate)
    return "let go"


@linepool.handler
def drive() -> str:
    """Wait until the test opens the gate, in C that has released the interpreter's lock."""
    libc = ctypes.CDLL(None)
    gate = os.open(_ring(), os.O_RDONLY)
    while libc.read(gate, ctypes.create_string_buffer(1), 1) != 1:
        pass
    os.close(gate)
    return "let go"


@linepool.handler
def stuck_in_c() -> None:
    """Run in circles in C, and never let another thread run."""
    _ring()
    collections.deque(itertools.repeat(0), maxlen=0)


@linepool.handler
def big(size: int) -> bytes:
    """Return a long line."""
    return b"x" * size


@linepool.handler
def stream(lines: int, size: int) -> Iterator[bytes]:
    """Send long lines."""
    for _ in range(lines):
        yield b"x" * size


# -- what a worker has open


@linepool.handler
def program() -> list[str]:
    """Say where the descriptors of a program lead that was started without closing any."""
    words = ["ls", "-l", "/proc/self/fd"]
    run = subprocess.run(words, close_fds=False, stdout=subprocess.PIPE, text=True, check=True)
    return [line.split()[-1] for line in run.stdout.splitlines() if "->" in line]


# -- madness


@linepool.handler
def babble(seed: int, count: int) -> None:
    """Write nonsense to where connections are handed on, with a socket each."""
    source = random.Random(seed)
    channel = _my_worker()._place.channel
    with socket.socket() as sock:
        for _ in range(count):
            data = bytes([source.randrange(8), source.randrange(64)])
            data += source.choice([source.randbytes(24), _NAN * 3, bytes(24)])
            data += source.randbytes(source.randrange(40))
            with contextlib.suppress(BlockingIOError):
                socket.send_fds(channel, [data], [sock.fileno()] * source.randrange(3))


def _my_worker() -> Any:
    frame = sys._getframe()
    while frame.f_back is not None:
        frame = frame.f_back
        found = frame.f_locals.get("self")
        if type(found).__name__ == "Worker":
            return found
    raise LookupError("no worker among the callers")


# -- hooks, only if there is a journal


def _note(*words: object) -> None:
    journal = os.open(_JOURNAL, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(journal, (" ".join(map(str, [*words, os.getpid()])) + "\n").encode())
    os.close(journal)


if _JOURNAL:

    @linepool.on_worker_start
    def open_a_tool() -> None:
        """Have something open, as a database's client has."""
        _kept.append(open(f"{_JOURNAL}.tool", "w", encoding="ascii"))  # noqa: SIM115

    @linepool.on_connect
    def greet(session: Session) -> str:
        """Greet a client."""
        _note("connect", session.id)
        return f"hello {session.id}"

    @linepool.on_disconnect
    def part(session: Session) -> None:
        """Note who has gone."""
        _note("disconnect", session.id)
