"""How a worker waits for something to do, round by round, without the compiled core.

Runs in workers. The compiled core has a class of the same name, which serves what is plain by itself and
returns the rest; this one returns everything.
"""

from __future__ import annotations

import importlib
import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from attrs import frozen

from linepool import core
from linepool.core.rules import EVENTS_WHILE_OTHERS_WAIT, MOMENT_NS, SLEPT_NS, WORTH_NS
from linepool.kernel.acceptor import Acceptor
from linepool.kernel.sockets import LONGEST_WAIT
from linepool.worker.admission import Admission
from linepool.worker.connection import Connection
from linepool.worker.context import WorkerContext
from linepool.worker.core_connection import AcceptedConnection, CoreConnection
from linepool.worker.edges import Edges
from linepool.worker.handoff import Handoff
from linepool.worker.table import Table

if TYPE_CHECKING:
    from select import epoll

Events = list[tuple[int, int]]
"""Descriptors and what has happened, as epoll reports it."""

_MOMENT = MOMENT_NS / 1e9  # seconds


@frozen
class Parts:
    """What a worker's rounds use.

    Attributes:
        offload: Hands off some of the connections that are readable, given the events of a round.
        admission: Which new clients are served.
        gives_back: Each connection is given back to the parker after each turn.
        accepted: The class of a connection that the compiled core has accepted.
        complete: The class that it becomes.
    """

    context: WorkerContext
    epoll: epoll
    table: Table
    acceptor: Acceptor
    handoff: Handoff
    edges: Edges
    offload: Callable[[Events], None]
    admission: Admission
    gives_back: bool
    accepted: type[AcceptedConnection] = AcceptedConnection
    complete: type[CoreConnection] = CoreConnection


class Rounds:
    """The rounds of one worker.

    Attributes:
        is_idle: As the master knows it.
        began_ns: When the round began, on the monotonic clock.
    """

    read = staticmethod(Connection.on_readable)
    """Serves a connection that is readable."""
    again = staticmethod(Connection.take_turn)
    """Serves a connection that needs another turn, or whose client reads again."""

    def __init__(self, parts: Parts) -> None:
        self._board = parts.context.board
        self._poll = parts.epoll.poll
        self._parts = parts
        self._table = parts.table
        self._was_late = True  # the last wait was longer than a moment
        self._waited_ns = 0  # for work, altogether
        self._mean_ns = 0  # what one turn of a connection took lately
        self._figures = parts.context.figures
        self._count = 0  # events of this round
        self.is_idle = True
        self.began_ns = 0

    def next_events(self, *, takes_work: bool, may_wait: bool = True) -> Events:
        """Wait for something to do, and publish that this worker is idle.

        Args:
            takes_work: Whether the worker may be given connections when it has nothing to do.
            may_wait: There is nothing to do already.
        """
        poll, board = self._poll, self._board
        now_ns = time.monotonic_ns()
        others_wait = board.ready_connections()
        most = EVENTS_WHILE_OTHERS_WAIT if others_wait else -1
        if not may_wait:
            # What is there now came after the events of the round before.
            self._figures.since_ns, self.began_ns = self.began_ns, now_ns
            events = poll(0, most)
        else:
            board.idle(0, now_ns if takes_work else 0)
            if others_wait and takes_work:
                self._parts.handoff.ask_for_work(now_ns)
            # Work that came late the last time will come late again: then the short wait is left out.
            events = [] if self._was_late else poll(_MOMENT, most)
            if not events:
                if not self.is_idle:
                    self.is_idle = True
                    self._parts.edges.idle(time.monotonic_ns())
                pause = self._table.due - time.monotonic()
                events = poll(None if pause == math.inf else min(max(0.0, pause), LONGEST_WAIT))
            before_ns, self.began_ns = self.began_ns, time.monotonic_ns()
            began_ns = self.began_ns
            self._figures.since_ns = began_ns if began_ns - now_ns > SLEPT_NS else before_ns
            self._was_late = began_ns - now_ns > MOMENT_NS
            board.idle(0, 0)
            self._waited_ns += began_ns - now_ns
            board.waited(self._waited_ns)
        self._count = len(events)
        if self._mean_ns * self._count > WORTH_NS:
            self._parts.offload(events)
        return events

    def begin_work(self) -> None:
        """Report that the worker is not idle any more. Pre-condition: it was."""
        self.is_idle = False
        self._parts.edges.busy(time.monotonic_ns())

    def end(self, now_ns: int) -> None:
        """Note when the events of a round have been served."""
        if self._count:
            self._mean_ns += ((now_ns - self.began_ns) // self._count - self._mean_ns) >> 3


def rounds_of(parts: Parts) -> Rounds:
    """Return the rounds of a worker, those of the compiled core if there is one."""
    if core.compiled:
        compiled: Rounds = importlib.import_module("linepool.core.rounds").Rounds(parts)
        return compiled
    return Rounds(parts)


def reader_of(context: WorkerContext) -> Callable[[Connection, int], None]:
    """Return what serves a connection that is readable: the compiled core if there is one."""
    if core.compiled:
        read: Callable[[Connection, int], None]
        read = importlib.import_module("linepool.core.turn").Turns(context).read
        return read
    return Connection.on_readable
