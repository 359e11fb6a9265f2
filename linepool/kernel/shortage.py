"""Shortages of descriptors, memory, processes or room for files: they pass, unlike a fault of the app."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
from collections.abc import Iterator

from linepool.errors import SetupError

CAPACITY_ERRORS = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS}
CAPACITY_PAUSE = 0.1  # seconds; accept() at the limit fails at once, even if the backlog is empty
EXIT_STATUS = os.EX_TEMPFAIL
"""The exit status of a process that could not begin its work because of a shortage."""
_NO_THREAD = "can't start new thread"  # how Python says that there are too many
_LIMITS = {
    errno.EMFILE: (resource.RLIMIT_NOFILE, 1, "open files is {}: raise it (ulimit -n)"),
    errno.ENOMEM: (resource.RLIMIT_AS, 1024, "address space is {} KiB: raise it (ulimit -v)"),
    errno.EAGAIN: (resource.RLIMIT_NPROC, 1, "a user's processes is {}: raise it (ulimit -u)"),
    errno.EFBIG: (resource.RLIMIT_FSIZE, 1024, "a file's size is {} KiB: raise it (ulimit -f)"),
}
"""Of an error: the limit that it may come from, its unit in a shell, and how to raise it."""
_LOADING = {"failed to map segment": errno.ENOMEM, "Too many open files": errno.EMFILE}
"""What the dynamic linker says of a library that it cannot load, ld.so(8)."""
_WITHOUT_LIMIT = {errno.ENFILE, errno.ENOBUFS, errno.ENOSPC, errno.EDQUOT, errno.EROFS}


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


def what_is_short(error: BaseException) -> str:
    """Return what was not to be had, and which limit says so; "": the exception is of another kind."""
    found = _as_os_error(error)
    if found is None:
        return ""
    if _is_nowhere(found):
        return "the working directory does not exist any more"
    if found.errno not in {*_LIMITS, *_WITHOUT_LIMIT}:
        return ""
    text = f"{found.filename}: {found.strerror}" if found.filename else str(found.strerror)
    if found.errno in _LIMITS:
        kind, unit, hint = _LIMITS[found.errno]
        limit, _ = resource.getrlimit(kind)
        if limit != resource.RLIM_INFINITY:
            text += f"; the limit of {hint.format(limit // unit)}"
    return text


def _as_os_error(error: BaseException) -> OSError | None:
    """Return an exception as the error that the kernel has reported; None: it has not."""
    number, place = 0, None
    match error:
        case OSError():
            return error
        case MemoryError():
            number = errno.ENOMEM
        case RuntimeError() if str(error) == _NO_THREAD:
            number = errno.EAGAIN
        case ImportError():
            found = (number for text, number in _LOADING.items() if text in str(error))
            number, place = next(found, 0), error.path
        case _:
            pass
    return OSError(number, os.strerror(number), place) if number else None


def _is_nowhere(error: OSError) -> bool:
    """Whether a path is relative to a directory that has been removed."""
    if isinstance(error, FileNotFoundError) and error.filename is None:
        try:
            os.getcwd()
        except FileNotFoundError:
            return True
    return False


@contextlib.contextmanager
def shortage_explained(task: str) -> Iterator[None]:
    """Have a shortage within the block be an error in one line.

    Args:
        task: What cannot be done then.

    Raises:
        SetupError: The text says what was not to be had.
    """
    try:
        yield
    except Exception as error:
        if text := what_is_short(error):
            raise SetupError(f"cannot {task}: {text}") from None
        raise
