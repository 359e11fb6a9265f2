"""Shared memory: mapped (mmap(2)), made read-only for a process (mprotect(2)), no longer shared."""

from __future__ import annotations

import ctypes
import mmap
import os

_PROT_READ = 1
_MAP_FIXED = 0x10

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p


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


def map_file(descriptor: int, size: int, begin: int = 0) -> mmap.mmap:
    """Return a shared map of a file, to read and write.

    The map has no descriptor: one that the mmap module makes of a file has a copy of the file's descriptor,
    which Python can leave out from version 3.13 on only.

    Args:
        descriptor: Of the file.
        size: How many bytes of it.
        begin: The first of them; a multiple of ``mmap.PAGESIZE``.

    Raises:
        OSError: The kernel refuses it.
    """
    page = mmap.mmap(-1, size)
    _map_over(page, mmap.MAP_SHARED, descriptor, begin)
    return page


def stop_sharing(page: mmap.mmap) -> None:
    """Map private memory in the place of a shared page: from now on this process writes to a page of its own.

    Raises:
        OSError: The kernel has no memory for the page.
    """
    _map_over(page, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1)


def _map_over(page: mmap.mmap, flags: int, descriptor: int, begin: int = 0) -> None:
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    where, size = ctypes.c_void_p(address), ctypes.c_size_t(len(page))
    protection = mmap.PROT_READ | mmap.PROT_WRITE
    flags |= _MAP_FIXED
    if _libc.mmap(where, size, protection, flags, descriptor, ctypes.c_long(begin)) != address:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
