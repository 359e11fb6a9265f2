"""The holder of a process's descriptors: a process that shares its table of them, and outlives it.

When a process is killed, the kernel closes its descriptors before anybody learns of that, unless another
process uses the same table (clone(2), CLONE_FILES). So a worker has a holder, which does nothing but sleep:
what the worker opens and closes is open and closed in the holder too. When the worker has died, the holder
becomes a child of the master. That takes the connections that can be saved, and kills it together with all
that is left of the worker's process group. If no master does that, the holder ends by itself.

Linux only, on the machines whose number of the system call is known here; elsewhere there is no holder.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NoReturn

from linepool.kernel import features
from linepool.kernel.children import children
from linepool.kernel.pidfd import OpenFiles
from linepool.kernel.signals import signal_at_parents_end, signals_blocked
from linepool.kernel.title import set_title

_CLONE_FILES = 0x400  # <linux/sched.h>
_CLONE = {"x86_64": 56, "aarch64": 220, "riscv64": 220}  # the number of clone(2)
_PATIENCE = 1  # seconds for the master, after the end of the process
_WALL = 0x40000000  # for waitpid: also a child without a termination signal (waitpid(2))
_ENDED = signal.SIGUSR1
_LARGE = 1 << 18  # bytes; smaller pieces are those of libraries
_NAME = "linepool holder\n"  # as set_title gives it


Sleep = Callable[[Iterable[tuple[int, int]], int, int, int], NoReturn]
"""As ``core.asleep.sleep``."""


def start_holder(details: str, sleep: Sleep | None) -> int:
    """Fork the holder of this process's descriptors; return its pid, or 0: there can be none.

    It is no child for wait(2), as long as this process lives (clone(2), termination signal 0): the app's code
    may wait for any child of its own.

    Pre-condition: this process has one thread, and is the leader of its process group.

    Args:
        details: What its title shows besides.
        sleep: What it does without its memory; None: it keeps that, some 2 MB.
    """
    number = _CLONE.get(os.uname().machine, 0)
    if not features.PIDFD or not number or sys.maxsize < 2**32:
        return 0
    # Not CDLL: that would release the interpreter's lock, and the new process would have to take it.
    clone = ctypes.PyDLL(None).syscall
    clone.argtypes = [ctypes.c_long] * 6
    clone.restype = ctypes.c_long
    parent = os.getpid()
    with signals_blocked():
        pid: int = clone(number, _CLONE_FILES, 0, 0, 0, 0)
        if pid == 0:
            _hold(parent, details, sleep)
    return max(pid, 0)


def end_holder(pid: int) -> None:
    """Kill the holder of this process, for nothing is to be saved; 0: there is none."""
    if pid:
        with contextlib.suppress(ProcessLookupError, ChildProcessError):  # something has killed it
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, _WALL)


def _hold(parent: int, details: str, sleep: Sleep | None) -> NoReturn:
    try:
        set_title("holder", details)
        signal_at_parents_end(_ENDED)
        if sleep is not None:
            sleep(_interpreters_memory(), _ENDED, parent, _PATIENCE)
        while os.getppid() == parent:
            signal.sigwait({_ENDED})
        time.sleep(_PATIENCE)
    finally:
        os._exit(0)


def _interpreters_memory() -> list[tuple[int, int]]:
    """Return begin and end of all large writable memory of no file, but for the stack (proc(5), maps)."""
    found = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        where, access, *_, inode = line.split()[:5]
        if access == "rw-p" and inode == "0" and not line.endswith("[stack]"):
            begin, _, end = where.partition("-")
            found.append((int(begin, 16), int(end, 16)))
    return [(begin, end) for begin, end in found if end - begin >= _LARGE]


@contextlib.contextmanager
def holder_of(pid: int) -> Iterator[OpenFiles | None]:
    """Yield the holder of a child of this process that has died; None: it has none.

    Pre-condition: that is not reaped, so its number is not that of another process group.
    """
    for child in children() - {pid}:
        with contextlib.suppress(OSError):  # it has ended
            if os.getpgid(child) != pid or Path(f"/proc/{child}/comm").read_text() != _NAME:
                continue
            pidfd = os.pidfd_open(child)
            try:
                yield OpenFiles(child, pidfd)
            finally:
                os.close(pidfd)
            return
    yield None
