"""Handlers that wait in C, with the interpreter free and with it held."""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import struct
from collections.abc import Iterator

import linepool

_free, _held = ctypes.CDLL(None, use_errno=True), ctypes.PyDLL(None)


@contextlib.contextmanager
def _awaited(path: str) -> Iterator[tuple[bytes | None, int]]:
    """Give what poll(2) is to look at: a FIFO, or nothing if the path is empty."""
    if not path:
        yield None, 0
        return
    fifo = os.open(path, os.O_RDWR)
    try:
        yield struct.pack("ihh", fifo, select.POLLIN, 0), 1
    finally:
        os.close(fifo)


def _said(result: int) -> str:
    return f"{result} {'interrupted' if result < 0 else 'not interrupted'}"


@linepool.handler
def wait(milliseconds: int, path: str = "") -> str:
    """Wait in poll(2), which a signal ends with an error; say what it returned.

    Args:
        milliseconds: How long at most.
        path: Of a FIFO; 1 is returned once there is a byte in it.
    """
    with _awaited(path) as awaited:
        return _said(_free.poll(*awaited, milliseconds))


@linepool.handler
def hold(milliseconds: int, path: str = "") -> str:
    """Do the same without letting other threads run."""
    with _awaited(path) as awaited:
        return _said(_held.poll(*awaited, milliseconds))
