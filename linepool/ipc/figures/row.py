"""One row of the figures, as the process uses it that writes it: a worker, or the master."""

from __future__ import annotations

import time
import zlib
from bisect import bisect_left
from collections.abc import Sequence
from typing import Protocol

from linepool.ipc.figures.buckets import BOUNDS_NS
from linepool.ipc.figures.words import (
    BLOCK_WORDS,
    BLOCKS,
    FIRST_BUCKET,
    MOST_SLOW,
    NOTE,
    NOTE_AT,
    RESULTS,
    ROW_BYTES,
    SLOW,
    UNKNOWN,
    WORD,
)

SLOW_NS = 1_000_000
"""A request that took less is never among the slowest."""
KEPT_NS = 300_000_000_000
"""For how long one of the slowest stays."""

_OK = RESULTS[0]


class Client(Protocol):
    """The client that has sent a request: its session."""

    @property
    def peer(self) -> str:
        """Its address."""


def noted(view: memoryview) -> tuple[int, bytes]:
    """Return how many notes the worker of a row has left, and the last one; b"": it is being written."""
    note = view[NOTE_AT:]
    count, length, check = NOTE.unpack_from(note)
    data = bytes(note[NOTE.size : NOTE.size + length])
    return count, data if zlib.crc32(data) == check else b""


class Row:
    """A row.

    Args:
        view: Its bytes; None: those of a row that nobody else reads.
        blocks: Those of the commands, by their numbers less 1.

    Attributes:
        words: Its words.
        offsets: The first word of each command's block, by the command's number; 0: there is none.
    """

    def __init__(self, view: memoryview | None = None, blocks: Sequence[int] = ()) -> None:
        view = memoryview(bytearray(ROW_BYTES)) if view is None else view
        size = BLOCKS * BLOCK_WORDS * WORD
        self.words = view[:size].cast("Q")
        self.offsets = [one * BLOCK_WORDS for one in (UNKNOWN, *blocks)]
        self._slow = view[size:]
        self._note = view[NOTE_AT:]
        # How long each of the slowest took, and when it ended: as the row has them after an earlier worker.
        self._slowest = [
            (took, began + took) for took, began, *_ in SLOW.iter_unpack(self._entries())
        ]

    def done(self, number: int, began_ns: int, ended_ns: int, result: str, client: Client) -> None:
        """Count a request.

        Args:
            number: Of its command; 0: there is none of that name.
            began_ns: When it began, on the monotonic clock.
            ended_ns: When it ended.
            result: How; see ``failures``.
            client: Its client's session.
        """
        words, took_ns = self.words, ended_ns - began_ns
        at = self.offsets[number]
        words[at] += took_ns  # SUM_NS
        words[at + FIRST_BUCKET + bisect_left(BOUNDS_NS, took_ns)] += 1
        if result is not _OK:
            self.failed(at, result)
        if took_ns > SLOW_NS:
            self.slow(at, began_ns, ended_ns, result, client.peer)

    def lost(self, block: int, began_ns: int, ended_ns: int, result: str, client: Client) -> None:
        """Count a request of which the block is known; otherwise as ``done``."""
        self.offsets = [block * BLOCK_WORDS]
        self.done(0, began_ns, ended_ns, result, client)

    def failed(self, offset: int, result: str) -> None:
        """Count a request that has not ended with a value, given the first word of its block."""
        if result in RESULTS[1:]:
            self.words[offset + RESULTS.index(result)] += 1

    def slow(self, offset: int, began_ns: int, ended_ns: int, result: str, client: str) -> None:
        """Note a request that took long, if it is among the slowest of late.

        Args:
            offset: The first word of its block.
            began_ns: When it began, on the monotonic clock.
            ended_ns: When it ended.
            result: How.
            client: Its client's address.
        """
        took_ns = ended_ns - began_ns
        old_ns = time.monotonic_ns() - KEPT_NS
        slowest = self._slowest
        free = (place for place, (_, until_ns) in enumerate(slowest) if until_ns < old_ns)
        place = next(free, -1)
        if place < 0:
            place = min(range(MOST_SLOW), key=slowest.__getitem__)
            if slowest[place][0] >= took_ns:
                return
        slowest[place] = took_ns, ended_ns
        number = RESULTS.index(result) if result in RESULTS else 0
        text = client.encode("utf-8", "replace")
        SLOW.pack_into(
            self._slow, place * SLOW.size, took_ns, began_ns, offset // BLOCK_WORDS, number, text
        )

    def note(self, data: bytes) -> None:
        """Leave a note to the master, in the place of the one before; at most ``MOST_NOTED`` bytes."""
        count, _, _ = NOTE.unpack_from(self._note)
        self._note[NOTE.size : NOTE.size + len(data)] = data
        NOTE.pack_into(self._note, 0, count + 1, len(data), zlib.crc32(data))

    def _entries(self) -> memoryview:
        return self._slow[: MOST_SLOW * SLOW.size]
