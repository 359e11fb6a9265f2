"""The title of a process, as ps(1) and top(1) show it."""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
from collections.abc import Callable
from pathlib import Path

_SELF = Path("/proc/self")
_ARG_START = 48  # numbers of the fields of /proc/self/stat (proc_pid_stat(5))
_ARG_END = 49
_AFTER_NAME = 3  # the number of the first field after the name, which may contain blanks


def set_title(kind: str, details: str = "") -> None:
    """Give this process a title, such as ``linepool: worker 3 sums``, and a short name: ``linepool worker``.

    The package setproctitle writes the title if it is installed. Otherwise it takes the place of the
    arguments that the kernel shows for the process, and is cut if it is longer than they were; Python keeps
    copies of them. The short name is what ``top`` and ``pgrep`` show. Where the kernel allows none of
    this, nothing changes.

    Args:
        kind: master, loader, worker, parker, observer or watcher.
        details: What follows it; "": nothing.
    """
    title = f"linepool: {kind} {details}".rstrip()
    if write := _setproctitle():
        write(title)
    else:
        with contextlib.suppress(OSError, ValueError):
            _overwrite_arguments(title.encode(errors="replace"))
    with contextlib.suppress(OSError):
        # Of a thread, as prctl(2), PR_SET_NAME; this one is the first, whose name is that of the process.
        (_SELF / "comm").write_text(f"linepool {kind}")  # at most 15 bytes


@functools.cache  # children inherit what was found: to look again would cost more than to write
def _setproctitle() -> Callable[[str], None] | None:
    try:
        write: Callable[[str], None] = importlib.import_module("setproctitle").setproctitle
    except ImportError:
        return None
    return write


def _overwrite_arguments(title: bytes) -> None:
    """Write a title over the arguments of this process (proc_pid_cmdline(5)).

    It is written to a file, not to memory: if the addresses are not what they should be, the worst that
    happens is an error.
    """
    fields = (_SELF / "stat").read_bytes().rpartition(b")")[2].split()
    begin, end = (int(fields[number - _AFTER_NAME]) for number in (_ARG_START, _ARG_END))
    room = end - begin - 1  # the last byte must stay zero
    shown = (_SELF / "cmdline").read_bytes()
    memory = os.open(_SELF / "mem", os.O_RDWR | os.O_CLOEXEC)
    try:
        if room > 0 and os.pread(memory, len(shown), begin) == shown:
            os.pwrite(memory, title[:room].ljust(room, b"\0"), begin)
    finally:
        os.close(memory)
