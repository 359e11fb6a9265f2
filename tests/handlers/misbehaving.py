"""Handlers that write garbage where a worker reports its state: the status pipe and the board."""

from __future__ import annotations

import contextlib
import mmap
import os
import random

from common import current_worker

import linepool
from linepool.pool.status import State, packed


@linepool.handler
def babble(seed: int, size: int) -> None:
    """Write garbage into the status pipe."""
    with contextlib.suppress(BlockingIOError):
        os.write(current_worker()._spec.pipe.writer, random.Random(seed).randbytes(size))


@linepool.handler
def babble_without_end() -> None:
    """Write garbage into the status pipe faster than the master can read it."""
    garbage = random.Random(1).randbytes(65536)
    writer = current_worker()._spec.pipe.writer
    os.set_blocking(writer, True)
    while True:
        os.write(writer, garbage)


@linepool.handler
def lie(state: int, at_ns: int, requests: int) -> None:
    """Write a well-formed record with the given values."""
    spec = current_worker()._spec
    record = packed(spec.slot, State(state), os.getpid(), spec.generation, 0, requests, at_ns)
    os.write(spec.pipe.writer, record)


@linepool.handler
def pose(slot: int) -> None:
    """Write records with the slot of another worker."""
    spec = current_worker()._spec
    record = packed(slot, State.LEAVING, os.getpid(), spec.generation, 0, 0, 0)
    os.write(spec.pipe.writer, record * 8)


@linepool.handler
def scribble(seed: int) -> None:
    """Overwrite this worker's slot of the board with garbage."""
    words = current_worker()._board._words
    source = random.Random(seed)
    for place in range(len(words)):
        words[place] = source.getrandbits(64)


@linepool.handler
def scribble_everywhere(seed: int) -> None:
    """Overwrite the whole board with garbage."""
    page: mmap.mmap = current_worker()._spec.board.head.obj
    page[:] = random.Random(seed).randbytes(len(page))


@linepool.handler
def hush() -> None:
    """Close the status pipe."""
    os.close(current_worker()._spec.pipe.writer)


@linepool.handler
def close_all() -> None:
    """Close every descriptor, as careless libraries do."""
    os.closerange(3, 256)
