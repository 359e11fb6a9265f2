"""The board as the parker uses it. What a worker has written is checked before use."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import ClassVar

from linepool.ipc.board.awaited import AwaitedTable
from linepool.ipc.board.bans import Bans
from linepool.ipc.board.page import Board
from linepool.ipc.board.words import (
    BEGUN_WITH,
    DENIED_BY_PARKER,
    DROPPED_BY_PARKER,
    GIVEN,
    HEARD,
    HELD,
    IDLE_SINCE_NS,
    MISSED_WAKES,
    MOST_AWAITED,
    ORDER,
    ORIGINS,
    PARKED,
    PARKER,
    PARKER_FULL,
    READY,
    READY_SINCE_NS,
    REFUSED_BY_PARKER,
    UNSTARTED,
    WAITERS,
    WAKES,
    count_in,
)
from linepool.ipc.waiting import Waiting


class ParkerSlot:
    """A worker's slot as the parker uses it."""

    def __init__(self, board: Board, number: int, channel: int) -> None:
        self._words = board.slot(number)[1]
        self._words[UNSTARTED] = 0
        self._words[HEARD] = channel
        self._given = count_in(self._words, GIVEN)  # the number of the last connection
        self._begun_with = 0
        self._missed_wakes = self._words[MISSED_WAKES]

    @property
    def idle_since_ns(self) -> int:
        """When the worker began to wait for work; 0: it works."""
        since_ns: int = self._words[IDLE_SINCE_NS]
        return since_ns if since_ns <= time.monotonic_ns() else 0

    @property
    def is_leaving(self) -> bool:
        """Whether the master has ordered it to leave."""
        return self._words[ORDER] != 0

    @property
    def begun_with(self) -> int:
        """The number of the last connection from the parker that it has begun to serve."""
        begun_with = self._words[BEGUN_WITH]
        if self.may_have_begun(begun_with):
            self._begun_with = begun_with
        return self._begun_with

    def may_have_begun(self, number: int) -> bool:
        """Whether ``begun_with`` may be this number: it was given, and does not decrease."""
        return self._begun_with <= number <= self._given

    @property
    def held(self) -> int:
        """How many connections the worker holds."""
        return count_in(self._words, HELD)

    def has_missed_wakes(self) -> bool:
        """Whether wake-ups of the worker found no room in its channel since the last call."""
        before, self._missed_wakes = self._missed_wakes, self._words[MISSED_WAKES]
        return bool(before != self._missed_wakes)

    def next_gift(self) -> int:
        """Publish that another connection is given to the worker; return the connection's number."""
        self._given += 1
        self._words[GIVEN] = self._given
        return self._given

    def unstarted(self, count: int) -> None:
        """Publish how many connections were given to it that it has not begun to serve."""
        self._words[UNSTARTED] = count


class ParkerView:
    """The board as the parker uses it.

    Attributes:
        bans: The networks that may not connect for a while.
        most_awaited: How many topics ``awaited`` shows.
    """

    most_awaited: ClassVar[int] = MOST_AWAITED

    def __init__(self, board: Board) -> None:
        self.bans = Bans(board)
        self._board = board
        self._head = board.head
        self._origins = board.parker_origins
        self._awaited = AwaitedTable(board)

    def slot(self, number: int, channel: int) -> ParkerSlot:
        """Return the slot of a new worker, and publish that its channel is here: the cookie of its socket."""
        return ParkerSlot(self._board, number, channel)

    def holds(self, count: int) -> None:
        """Publish how many connections it holds."""
        self._head[PARKED] = count

    def ready_connections(self, count: int) -> None:
        """Publish how many of them wait for an idle worker."""
        self._head[READY] = count

    def ready_since(self, since_ns: int) -> None:
        """Publish when the first of these began to wait."""
        self._head[READY_SINCE_NS] = since_ns

    def count_origin(self, origin: int, change: int) -> None:
        """Publish that it holds one connection more or less that comes from there; 0: from nowhere."""
        if origin:
            self._origins[origin % ORIGINS] += change

    def held_by_workers(self) -> int:
        """Return how many connections all workers hold, also those of which the parker has not heard."""
        return self._board.held_by_workers()

    def connections_from(self, origin: int) -> int:
        """Return how many connections that come from there the parker and all workers hold."""
        return self._board.connections_from(origin)

    @property
    def is_full(self) -> bool:
        """Whether there is little room for more connections."""
        return self._head[PARKER_FULL] != 0

    @is_full.setter
    def is_full(self, full: bool) -> None:
        self._head[PARKER_FULL] = full

    def count_refused(self) -> None:
        """Count a connection that was refused because there were too many."""
        self._head[REFUSED_BY_PARKER] += 1

    def count_denied(self) -> None:
        """Count a connection that the rules of access do not allow."""
        self._head[DENIED_BY_PARKER] += 1

    def count_dropped(self) -> None:
        """Count a connection that was closed because a worker had passed nonsense."""
        self._head[DROPPED_BY_PARKER] += 1

    @property
    def wakes(self) -> int:
        """The number of the last wake-up of requests that wait."""
        return self._head[WAKES]

    @wakes.setter
    def wakes(self, number: int) -> None:
        self._head[WAKES] = number

    def waiters(self, count: int) -> None:
        """Publish how many requests wait."""
        self._head[WAITERS] = count

    def awaited(self, topics: Iterable[tuple[bytes, int, Waiting]]) -> None:
        """Publish for which topics most requests wait, with their number and the first of them."""
        self._awaited.write(topics)

    def leaves(self) -> None:
        """Publish that there is no parker any more."""
        self._head[PARKER] = 0
