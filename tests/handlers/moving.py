"""Handlers for connections that move between processes, and hooks that record connections."""

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
import time

from common import announce, current_worker, wait_at_gate

import linepool
from linepool import Connection, Session
from linepool.ipc.channel import send
from linepool.ipc.messages import ConnectionState, PassedConnection

_JOURNAL = os.environ.get("JOURNAL", "")
_NAN = struct.pack("d", float("nan"))
_kept: list[object] = []


# -- what moves along with a connection


@linepool.handler
def put(size: int, data: bytes = linepool.body("size")) -> str:
    """Take a data block and return its length and its checksum."""
    return f"{len(data)} {sum(data)}"


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
    """Set the session's user, and nothing else."""
    session.user = user


@linepool.handler
def who(session: Session) -> str:
    """Return what the session says of the connection."""
    return f"{session.id} {session.peer} {session.listener} {session.user}"


# -- what cannot move


@linepool.handler
def pin(connection: Connection) -> int:
    """Have the live connection injected, which pins it to this worker."""
    return os.getpid()


@linepool.handler
def spoil(session: Session) -> int:
    """Mutate a value in place so that it is not plain data any more."""
    session["bag"] = []
    session["bag"].append(object())
    return os.getpid()


@linepool.handler
def hoard(count: int, session: Session) -> None:
    """Mutate a value in place so that it is larger than a value that can be assigned."""
    session["bag"] = []
    session["bag"].extend(range(count))


@linepool.handler
def bag(session: Session) -> str:
    """Return the number of items and their sum."""
    return f"{len(session['bag'])} {sum(session['bag'])}"


@linepool.handler
def assign(what: str, session: Session) -> None:
    """Assign a value that a session refuses."""
    session["bag"] = {"object": object(), "much": "x" * 10_000}[what]


# -- a state that other code has written

_dumps = linepool.Session.dump, linepool.Line.dump


@linepool.handler
def change_code(what: str) -> None:
    """Have this worker write sessions, or states of the protocol, as other code does; ``-``: neither."""
    Session.dump, linepool.Line.dump = _dumps  # type: ignore[method-assign]
    if what == "session":
        Session.dump = lambda self: b"9\0me"  # type: ignore[method-assign]
    elif what == "protocol":
        linepool.Line.dump = lambda self: b"\x51{}\n"  # type: ignore[method-assign]


# -- ways to be slow


@linepool.handler
def hold() -> str:
    """Wait until the test opens the gate, in a system call."""
    wait_at_gate()
    return "let go"


@linepool.handler
def spin() -> str:
    """Wait until the test opens the gate, in Python code that never sleeps."""
    gate = os.open(announce(), os.O_RDONLY | os.O_NONBLOCK)
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
    """Wait until the test opens the gate, in C with the interpreter's lock released."""
    libc = ctypes.CDLL(None)
    gate = os.open(announce(), os.O_RDONLY)
    while libc.read(gate, ctypes.create_string_buffer(1), 1) != 1:
        pass
    os.close(gate)
    return "let go"


@linepool.handler
def stuck_in_c() -> None:
    """Loop in C without releasing the interpreter's lock."""
    announce()
    collections.deque(itertools.repeat(0), maxlen=0)


# -- what a worker has open


@linepool.handler
def program() -> list[str]:
    """Return the targets of the descriptors of a program that was started without closing any."""
    words = ["ls", "-l", "/proc/self/fd"]
    run = subprocess.run(words, close_fds=False, stdout=subprocess.PIPE, text=True, check=True)
    return [line.split()[-1] for line in run.stdout.splitlines() if "->" in line]


# -- garbage


@linepool.handler
def babble(seed: int, count: int) -> None:
    """Write garbage, with up to two sockets each time, into the channel to the parker."""
    source = random.Random(seed)
    channel = current_worker()._spec.channel
    with socket.socket() as sock:
        for _ in range(count):
            data = bytes([source.randrange(8), source.randrange(3), source.randrange(64)])
            data += source.choice([source.randbytes(24), _NAN * 3, bytes(24)])
            data += source.randbytes(source.randrange(40))
            with contextlib.suppress(BlockingIOError):
                socket.send_fds(channel, [data], [sock.fileno()] * source.randrange(3))


@linepool.handler
def pass_a_file() -> None:
    """Pass a file to the parker in the place of a connection."""
    with open("/etc/hostname", "rb") as file:
        state = ConnectionState(0, time.monotonic() + 60, time.monotonic())
        send(current_worker()._spec.channel, PassedConnection(state, file.fileno()))


# -- hooks, if there is a journal


def _note(*words: object) -> None:
    journal = os.open(_JOURNAL, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(journal, (" ".join(map(str, [*words, os.getpid()])) + "\n").encode())
    os.close(journal)


if _JOURNAL:

    @linepool.on_worker_start
    def open_a_tool() -> None:
        """Keep a file open, as a database's client keeps a connection."""
        _kept.append(open(f"{_JOURNAL}.tool", "w", encoding="ascii"))  # noqa: SIM115

    @linepool.on_connect
    def greet(session: Session) -> str:
        """Greet a client."""
        _note("connect", session.id)
        return f"hello {session.id}"

    @linepool.on_disconnect
    def part(session: Session) -> None:
        """Record the end of a connection."""
        _note("disconnect", session.id)
