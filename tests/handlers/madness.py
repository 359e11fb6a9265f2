"""Handlers that write nonsense to wherever a worker tells the master how it is."""

from __future__ import annotations

import contextlib
import mmap
import os
import random
import sys
from typing import Any

import linepool
from linepool.pool.status import State, packed


def my_worker() -> Any:
    """Return the worker object of this process."""
    frame = sys._getframe()
    while frame.f_back is not None:
        frame = frame.f_back
        found = frame.f_locals.get("self")
        if type(found).__name__ == "Worker":
            return found
    raise LookupError("no worker among the callers")


@linepool.handler
def add(a: int, b: int) -> int:
    """Add two whole numbers."""
    return a + b


@linepool.handler
def pid() -> int:
    """Return the worker's pid."""
    return os.getpid()


@linepool.handler
def babble(seed: int, size: int) -> None:
    """Write nonsense into the status pipe."""
    with contextlib.suppress(BlockingIOError):
        os.write(my_worker()._place.pipe.writer, random.Random(seed).randbytes(size))


@linepool.handler
def babble_for_ever() -> None:
    """Fill the status pipe faster than anybody can read it."""
    nonsense = random.Random(1).randbytes(65536)
    writer = my_worker()._place.pipe.writer
    os.set_blocking(writer, True)
    while True:
        os.write(writer, nonsense)


@linepool.handler
def lie(state: int, at_ns: int, requests: int) -> None:
    """Write a record that looks right."""
    place = my_worker()._place
    record = packed(
        place.slot_number, State(state), os.getpid(), place.generation, 0, requests, at_ns
    )
    os.write(place.pipe.writer, record)


@linepool.handler
def pose(slot: int) -> None:
    """Write records in the name of another worker."""
    place = my_worker()._place
    record = packed(slot, State.LEAVING, os.getpid(), place.generation, 0, 0, 0)
    os.write(place.pipe.writer, record * 8)


@linepool.handler
def scribble(seed: int) -> None:
    """Write nonsense into this worker's slot of the board."""
    words = my_worker()._place.slot.words
    source = random.Random(seed)
    for place in range(len(words)):
        words[place] = source.getrandbits(64)


@linepool.handler
def scribble_everywhere(seed: int) -> None:
    """Write nonsense over the whole board."""
    page: mmap.mmap = my_worker()._place.slot.words.obj
    page[:] = random.Random(seed).randbytes(len(page))


@linepool.handler
def hush() -> None:
    """Close the status pipe."""
    os.close(my_worker()._place.pipe.writer)


@linepool.handler
def close_all() -> None:
    """Close every descriptor, as careless libraries do."""
    os.closerange(3, 256)
