"""Pipes whose ends never wait, and counters that wake another thread or process (eventfd(2))."""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import struct

from linepool.kernel import features

_NUMBER = struct.Struct("=Q")
_ONE_PAGE = 4096 - 512
"""Bytes of a pipe of one page, without the longest message that is not split (POSIX)."""
_NUMBERS = 512  # that are read from a pipe at once


def quick_pipe() -> tuple[int, int]:
    """Return the reader and the writer of a new pipe; neither waits, and no program inherits them."""
    if features.PIPE2:
        return os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    ends = os.pipe()
    for end in ends:
        os.set_blocking(end, False)
    return ends


def may_be_full(end: int, held: int) -> bool:
    """Whether a pipe that holds some bytes may have no room for a short message.

    It has room for some pages, of which the first may be read in part. A user with many pipes gets smaller
    ones (pipe(7), pipe-user-pages-soft). Where the system does not tell, it has one page or more.
    """
    if held < _ONE_PAGE or not features.PIPE_SIZE:
        return held >= _ONE_PAGE
    return held >= fcntl.fcntl(end, fcntl.F_GETPIPE_SZ) - mmap.PAGESIZE


def counter() -> tuple[int, int]:
    """Return the end that is readable once something was added, and the end to add to it.

    Both may be passed to other processes. With eventfd(2) both are the same descriptor, else those of a pipe.

    Raises:
        OSError: There are no descriptors left.
    """
    if not features.EVENTFD:
        return quick_pipe()
    both = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    return both, both


def _add(writer: int, number: int) -> None:
    """Add to a counter. May be called by: any thread, and the handlers of signals."""
    with contextlib.suppress(BlockingIOError):  # it is readable already
        os.write(writer, _NUMBER.pack(number))


def _take(reader: int) -> int:
    """Return what was added since the last call; 0: the other end is closed, or nothing was."""
    try:
        data = os.read(reader, _NUMBER.size * _NUMBERS)
    except BlockingIOError:
        return 0
    return sum(number for (number,) in _NUMBER.iter_unpack(data))


def add(writer: int, number: int) -> None:
    """Add to a counter. May be called by: any thread, and the handlers of signals."""
    if features.EVENTFD:
        os.eventfd_write(writer, number)
    else:
        _add(writer, number)


def take(reader: int) -> int:
    """Return what was added to a counter since the last call; it was readable.

    0: it is a pipe, and the other end is closed.
    """
    return os.eventfd_read(reader) if features.EVENTFD else _take(reader)
