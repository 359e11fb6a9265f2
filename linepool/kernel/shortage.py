"""Shortages of descriptors, memory or processes: they pass, unlike a fault of the app."""

from __future__ import annotations

import errno
import os

CAPACITY_ERRORS = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS}
CAPACITY_PAUSE = 0.1  # seconds; accept() at the limit fails at once, even if the backlog is empty
EXIT_STATUS = os.EX_TEMPFAIL
"""The exit status of a process that could not begin its work because of a shortage."""
_NO_THREAD = "can't start new thread"  # how Python says that there are too many


def is_shortage(error: BaseException | None) -> bool:
    """Whether a process could not begin its work because of a shortage, as far as its exception says."""
    while error is not None:
        if isinstance(error, MemoryError):
            return True
        if isinstance(error, RuntimeError) and str(error) == _NO_THREAD:
            return True
        # EAGAIN: fork(2) says so when there are too many processes.
        if isinstance(error, OSError) and error.errno in CAPACITY_ERRORS | {errno.EAGAIN}:
            return True
        error = error.__cause__ or error.__context__
    return False


def exit_status(error: BaseException) -> int:
    """Return the exit status of a process that ends with an exception."""
    return EXIT_STATUS if is_shortage(error) else 1
