"""Handlers that no exception reaches, and handlers that take their worker down."""

from __future__ import annotations

import collections
import contextlib
import ctypes
import hashlib
import itertools
import os
import resource
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator

import linepool
from linepool import Connection

FOREVER = 1000.0  # seconds
_PR_SET_DUMPABLE = 4

resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


@linepool.on_start
def become_another_user() -> None:
    """Give up root's rights, if the environment says so."""
    if user := int(os.environ.get("USER_ID", "0")):
        os.setgroups([])
        os.setgid(user)
        os.setuid(user)


@linepool.on_worker_start
def close_up() -> None:
    """Let nobody look into this process, if the environment says so (prctl(2))."""
    if "UNDUMPABLE" in os.environ:
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


@linepool.handler
def add(a: int, b: int) -> int:
    """Add two whole numbers."""
    return a + b


@linepool.handler
def pid() -> int:
    """Return the worker's pid."""
    return os.getpid()


@linepool.handler
def big(size: int) -> bytes:
    """Return a long line."""
    return b"x" * size


@linepool.handler
def nap(seconds: float) -> str:
    """Be slow."""
    time.sleep(seconds)
    return "awake"


@linepool.handler
def limit_processes(count: int) -> int:
    """Allow the master so many processes of its user; return how many were allowed before."""
    master = os.getppid()
    before, most = resource.prlimit(master, resource.RLIMIT_NPROC)
    resource.prlimit(master, resource.RLIMIT_NPROC, (count, most))
    return before


# -- ways to be stuck


@linepool.handler
def stuck_behind_except() -> None:
    """Try again, whatever comes."""
    while True:
        try:
            time.sleep(FOREVER)
        except BaseException:  # noqa: BLE001 - this one is meant to be bad
            continue


@linepool.handler
def stuck_in_c() -> None:
    """Run in circles in C, and never let another thread run."""
    collections.deque(itertools.repeat(0), maxlen=0)


@linepool.handler
def stuck_in_a_hash() -> None:
    """Compute in C for ages, without the interpreter's lock."""
    hashlib.pbkdf2_hmac("sha256", b"password", b"salt", 2**31 - 1)


@linepool.handler
def stuck_when_stopped() -> None:
    """Stop this process."""
    os.kill(os.getpid(), signal.SIGSTOP)


@linepool.handler
def stuck_and_deaf() -> None:
    """Block every signal that can be blocked."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    time.sleep(FOREVER)


@linepool.handler
def stuck_in_a_stream() -> Iterator[str]:
    """Send a line, and get stuck."""
    yield "one"
    stuck_in_c()


@linepool.handler
def flood() -> Iterator[str]:
    """Send lines without end."""
    while True:
        yield "x" * 1000


@linepool.handler
def babble() -> None:
    """Write nonsense into every pipe, until the end."""
    pipes = [
        number
        for number in map(int, os.listdir("/proc/self/fd"))
        if number > 2 and _is_a_pipe(number)
    ]
    while True:
        for pipe in pipes:
            os.write(pipe, b"nonsense")
        time.sleep(0.01)


def _is_a_pipe(number: int) -> bool:
    with contextlib.suppress(OSError):
        return stat.S_ISFIFO(os.fstat(number).st_mode)
    return False


# -- with children


@linepool.handler
def stuck_with_a_fork(connection: Connection) -> None:
    """Get stuck while a forked child, which has the client's socket too, sleeps."""
    connection.push(_forked())
    stuck_in_c()


@linepool.handler
def stuck_with_a_program(connection: Connection) -> None:
    """Get stuck while a program runs."""
    program = subprocess.Popen([sys.executable, "-c", f"import time; time.sleep({FOREVER})"])
    connection.push(program.pid)
    stuck_in_c()


@linepool.handler
def stuck_with_a_daemon(connection: Connection) -> None:
    """Get stuck while a child that has left the process group keeps the client's socket open."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.setsid()
        os.write(writer, b"!")
        time.sleep(FOREVER)
    os.read(reader, 1)
    connection.push(child)
    stuck_in_c()


@linepool.handler
def die_with_a_fork(how: str, connection: Connection) -> None:
    """Die while a forked child, which has the client's socket too, sleeps."""
    connection.push(_forked())
    _DEATHS[how]()


# -- ways to die


@linepool.handler
def die(how: str) -> None:
    """Take the worker down."""
    _DEATHS[how]()


_DEATHS = {
    "abort": os.abort,
    "segv": lambda: ctypes.string_at(0),
    "exit": lambda: os._exit(3),
}


def _forked() -> int:
    child = os.fork()
    if child == 0:
        time.sleep(FOREVER)
    return child
