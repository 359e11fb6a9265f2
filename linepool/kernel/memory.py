"""Memory that a process can no longer write (mprotect(2))."""

from __future__ import annotations

import ctypes
import mmap
import os

_PROT_READ = 1

_libc = ctypes.CDLL(None, use_errno=True)


def make_read_only(page: mmap.mmap, begin: int, end: int) -> None:
    """Make a part of a shared page read-only in this process: the kernel ends it if it writes there.

    Args:
        page: The whole.
        begin: Where the part begins, in bytes; a multiple of ``mmap.PAGESIZE``.
        end: Where it ends; likewise.

    Raises:
        OSError: The kernel refuses it.
    """
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    start, size = ctypes.c_void_p(address + begin), ctypes.c_size_t(end - begin)
    if _libc.mprotect(start, size, _PROT_READ):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
