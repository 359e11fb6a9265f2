"""The topics for which most requests wait: a table that the parker writes and the master reads."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from itertools import islice

from attrs import frozen

from linepool.ipc.board.page import Board
from linepool.ipc.board.words import AWAITED, AWAITED_SUM, MOST_AWAITED, WAITERS
from linepool.ipc.waiting import Waiting

_TRIES = 3  # the parker may be writing


@frozen
class AwaitedTopic:
    """A topic for which requests wait.

    Attributes:
        topic: Its name, as the app has given it; a long one is shortened.
        requests: How many of them wait.
        since_ns: When the first of these began to, on the monotonic clock.
        command: Of that one.
    """

    topic: bytes
    requests: int
    since_ns: int
    command: bytes


class AwaitedTable:
    """The table, and how many requests wait altogether."""

    def __init__(self, board: Board) -> None:
        self._head = board.head
        self._table = board.awaited

    def write(self, topics: Iterable[tuple[bytes, int, Waiting]]) -> None:
        """Publish topics, each with the number of its requests and the first of them."""
        rows = b"".join(
            AWAITED.pack(count, int(first.since * 1e9), first.command, len(topic), topic)
            for topic, count, first in islice(topics, MOST_AWAITED)
        ).ljust(len(self._table), b"\0")
        self._table[:] = rows
        self._head[AWAITED_SUM] = zlib.crc32(rows)

    def clear(self) -> None:
        """Publish that no request waits: there is no parker any more."""
        self._head[WAITERS] = self._head[AWAITED_SUM] = 0

    @property
    def requests(self) -> int:
        """How many requests wait."""
        return self._head[WAITERS]

    def read(self) -> list[AwaitedTopic]:
        """Return the topics, that with most requests first; none if the table is incomplete.

        It is up to a quarter of a second older than ``requests``.
        """
        requests = self.requests
        for _ in range(_TRIES):
            rows = bytes(self._table)
            if zlib.crc32(rows) == self._head[AWAITED_SUM]:
                return [
                    AwaitedTopic(
                        topic[:size], min(count, requests), since_ns, command.rstrip(b"\0")
                    )
                    for count, since_ns, command, size, topic in AWAITED.iter_unpack(rows)
                    if count and requests
                ]
        return []
