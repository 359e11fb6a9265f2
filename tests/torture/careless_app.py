"""The app of the experiment with careless handlers: what they do to the process that runs them.

Its journals are opened by name for each line, because a handler may have closed the descriptor.
"""

from __future__ import annotations

import contextlib
import gc
import os
import random
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator

import experiment_app  # noqa: F401 - registers its handlers

import linepool


def _descriptors(kind: str) -> Iterator[int]:
    """Yield the descriptors of this process whose file's name begins with a word, but for 0 to 2."""
    for descriptor in sorted(map(int, os.listdir("/proc/self/fd"))):
        with contextlib.suppress(OSError):
            if descriptor > 2 and os.readlink(f"/proc/self/fd/{descriptor}").startswith(kind):
                yield descriptor


@linepool.handler
def close_range() -> None:
    """os.closerange(3, 4096)"""
    os.closerange(3, 4096)


@linepool.handler
def close_clients() -> None:
    """close the connections of others"""
    for descriptor in _descriptors("socket:"):
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as sock:
            if sock.family == socket.AF_INET:
                sock.getpeername()
                os.close(descriptor)


@linepool.handler
def replace_standard() -> None:
    """close descriptors 0 to 2"""
    os.closerange(0, 3)


@linepool.handler
def write_to_pipes(seed: int) -> None:
    """write garbage to every pipe, the status pipe too"""
    garbage = random.Random(seed).randbytes(4096)
    for descriptor in _descriptors("pipe:"):
        with contextlib.suppress(OSError):
            os.write(descriptor, garbage)


@linepool.handler
def write_to_sockets(seed: int) -> None:
    """write garbage to every unix socket, the channel to the parker too"""
    garbage = random.Random(seed).randbytes(512)
    for descriptor in _descriptors("socket:"):
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as sock:
            if sock.family == socket.AF_UNIX:
                sock.send(garbage, socket.MSG_DONTWAIT)


@linepool.handler
def fork_and_sleep() -> int:
    """fork a child that sleeps, with all descriptors"""
    pid = os.fork()
    if pid == 0:
        time.sleep(1000)
        os._exit(0)
    return pid


@linepool.handler
def fork_and_return() -> str:
    """fork a child that returns from the handler, as if it were to reply too"""
    return "child" if os.fork() == 0 else "parent"


@linepool.handler
def fork_and_raise() -> str:
    """fork a child that raises"""
    if os.fork() == 0:
        raise ValueError("in the child")
    return "parent"


@linepool.handler
def ignore_signals() -> None:
    """ignore all signals"""
    _set_signals(signal.SIG_IGN)


@linepool.handler
def reset_signals() -> None:
    """give all signals their default effect"""
    _set_signals(signal.SIG_DFL)


@linepool.handler
def block_signals() -> None:
    """block all signals"""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())


@linepool.handler
def set_alarm() -> None:
    """have SIGALRM come within the request, which ends the process"""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    time.sleep(1000)


@linepool.handler
def change_process() -> None:
    """change the directory, the mask of files, the time limit of sockets, the depth of calls"""
    os.chdir("/")
    os.umask(0o777)
    socket.setdefaulttimeout(0.001)
    sys.setrecursionlimit(200)
    gc.disable()
    os.environ.clear()


@linepool.handler
def lower_limits() -> None:
    """lower the number of descriptors to those that are open"""
    highest = max(map(int, os.listdir("/proc/self/fd")))
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest, highest))


@linepool.handler
def leave_threads() -> None:
    """leave threads behind that never end"""
    for daemon in (True, False):
        threading.Thread(target=time.sleep, args=[1000], daemon=daemon).start()


@linepool.handler
def close_output() -> None:
    """close sys.stdout and sys.stderr"""
    sys.stdout.close()
    sys.stderr.close()


@linepool.handler
def exit_now() -> None:
    """sys.exit()"""
    sys.exit(3)


def _set_signals(handler: signal.Handlers) -> None:
    for number in signal.valid_signals():
        with contextlib.suppress(OSError, ValueError):
            signal.signal(number, handler)
