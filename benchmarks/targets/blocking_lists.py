"""BLPOP and its kin on lists in shared memory, under one lock: little beside what linepool itself costs."""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
import zlib

import linepool
from linepool.protocols.resp import NullArray

_LISTS = 64
_ITEMS = 4096  # of one list; further ones take the place of the oldest
_ITEM = 32  # bytes
_HEAD = struct.Struct("=QQ")  # how many were taken, and put
_SIZE = _HEAD.size + _ITEMS * _ITEM
_lock = os.memfd_create("lock")
_memory = mmap.mmap(-1, _LISTS * _SIZE)

app = linepool.App(protocol=linepool.Resp())


class Locked:
    """The lock, which the kernel opens if a worker dies."""

    def __enter__(self) -> None:
        fcntl.lockf(_lock, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        fcntl.lockf(_lock, fcntl.LOCK_UN)


def _place(key: bytes) -> int:
    return zlib.crc32(key) % _LISTS * _SIZE


def _put(key: bytes, item: bytes) -> int:
    place = _place(key)
    with Locked():
        taken, put = _HEAD.unpack_from(_memory, place)
        at = place + _HEAD.size + put % _ITEMS * _ITEM
        _memory[at : at + _ITEM] = item.ljust(_ITEM, b"\0")
        _HEAD.pack_into(_memory, place, max(taken, put + 1 - _ITEMS), put + 1)
    return int(min(put + 1 - taken, _ITEMS))


def _take(key: bytes) -> bytes | None:
    place = _place(key)
    with Locked():
        taken, put = _HEAD.unpack_from(_memory, place)
        if taken == put:
            return None
        at = place + _HEAD.size + taken % _ITEMS * _ITEM
        _HEAD.pack_into(_memory, place, taken + 1, put)
        return bytes(_memory[at : at + _ITEM]).rstrip(b"\0")


@app.handler
def rpush(key: bytes, item: bytes, waiters: linepool.Waiters) -> int:
    """Add an item, and wake the request that has waited longest for one."""
    length = _put(key, item)
    waiters.notify(key)
    return length


@app.handler
def blpop(key: bytes, timeout: float) -> list[bytes] | NullArray | linepool.Wait:
    """Take an item, or wait for one."""
    if (item := _take(key)) is not None:
        return [key, item]
    return linepool.Wait(key, timeout=timeout or None, then=NullArray())


@app.handler
def del_(key: bytes) -> int:
    """Remove all items of a list."""
    with Locked():
        _, put = _HEAD.unpack_from(_memory, _place(key))
        _HEAD.pack_into(_memory, _place(key), put, put)
    return 1
