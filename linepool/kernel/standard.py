"""Descriptors that the app's code may close: no connection gets the number of one that is written to.

Whatever has a number from 0 to 2 is read or written by code that means the terminal or the log. What a
worker itself writes to has a high number: the kernel gives new files the lowest one that is free.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import sys

from linepool.kernel.sockets import is_open

LAST_STANDARD = 2
_HIGH = 1000


def fill_standard_descriptors() -> None:
    """Open /dev/null under the numbers that are free, for Python's streams too if they are missing."""
    for number in range(LAST_STANDARD + 1):
        if not is_open(number):
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
            os.set_inheritable(number, True)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:  # it was closed when Python started
            mode = "w" if number else "r"
            stream = open(number, mode, errors="backslashreplace", closefd=False)  # noqa: SIM115
            setattr(sys, name, stream)


def flush() -> None:
    """Write out what was printed, if there is anywhere to write it."""
    if sys.stdout is not None:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()


def moved_away(descriptor: int) -> int:
    """Return a copy of a descriptor that is not a standard one, and close the original.

    Raises:
        OSError: There are no descriptors left; the original is closed.
    """
    try:
        return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, LAST_STANDARD + 1)
    finally:
        os.close(descriptor)
        fill_standard_descriptors()


def with_high_number(descriptor: int) -> int:
    """Return a copy of a descriptor with a high number, and close the original.

    If it has one already, or none is free, return the original.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    high = min(_HIGH, soft // 2)
    if descriptor >= high:
        return descriptor
    with contextlib.suppress(OSError):  # none is left
        copy = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, high)
        os.close(descriptor)
        return copy
    return descriptor
