"""Handlers that no exception ends, and handlers that end their worker."""

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

import common  # noqa: F401 - registers its handlers

import linepool
from linepool import Connection

FOREVER = 1000.0  # seconds
_PR_SET_DUMPABLE = 4

resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


@linepool.on_start
def become_another_user() -> None:
    """Become the user that the environment names, if it names one."""
    if user := int(os.environ.get("USER_ID", "0")):
        os.setgroups([])
        os.setgid(user)
        os.setuid(user)


@linepool.on_worker_start
def become_undumpable() -> None:
    """Make this process undumpable, if the environment says so (prctl(2))."""
    if "UNDUMPABLE" in os.environ:
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


@linepool.handler
def limit_processes(count: int, pid: int) -> int:
    """Set the process limit of a process; return the limit before."""
    before, most = resource.prlimit(pid, resource.RLIMIT_NPROC)
    resource.prlimit(pid, resource.RLIMIT_NPROC, (count, most))
    return before


# -- ways to hang


@linepool.handler
def stuck_behind_except() -> None:
    """Try again, whatever is raised."""
    while True:
        try:
            time.sleep(FOREVER)
        except BaseException:  # noqa: BLE001 - this one is meant to be bad
            continue


@linepool.handler
def stuck_in_c() -> None:
    """Loop in C without releasing the interpreter's lock."""
    collections.deque(itertools.repeat(0), maxlen=0)


@linepool.handler
def stuck_in_a_hash() -> None:
    """Compute in C for a very long time, with the interpreter's lock released."""
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
    """Send a line, then hang."""
    yield "one"
    stuck_in_c()


@linepool.handler
def babble() -> None:
    """Write garbage into every pipe, without end."""
    pipes = [
        number
        for number in map(int, os.listdir("/proc/self/fd"))
        if number > 2 and _is_a_pipe(number)
    ]
    while True:
        for pipe in pipes:
            os.write(pipe, b"garbage!")
        time.sleep(0.01)


def _is_a_pipe(number: int) -> bool:
    with contextlib.suppress(OSError):
        return stat.S_ISFIFO(os.fstat(number).st_mode)
    return False


# -- with children


@linepool.handler
def stuck_with_a_fork(connection: Connection) -> None:
    """Hang while a forked child, which has the client's socket too, sleeps."""
    connection.push(_forked())
    stuck_in_c()


@linepool.handler
def stuck_with_a_program(connection: Connection) -> None:
    """Hang while a program runs."""
    program = subprocess.Popen([sys.executable, "-c", f"import time; time.sleep({FOREVER})"])
    connection.push(program.pid)
    stuck_in_c()


@linepool.handler
def stuck_with_a_daemon(connection: Connection) -> None:
    """Hang while a child that has left the process group keeps the client's socket open."""
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
    """End the worker while a forked child, which has the client's socket too, sleeps."""
    connection.push(_forked())
    _DEATHS[how]()


# -- ways to end the worker


@linepool.handler
def die(how: str) -> None:
    """End the worker."""
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
