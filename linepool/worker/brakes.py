"""The commands that are refused for a while because workers died of them. Runs in workers.

The master decides which they are. While there are none, this costs one look at the board for each turn of
a connection: a braked command has its entry's ``call`` replaced, so every way to a handler meets it, also
from a batch, a transaction or middleware.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

from linepool.errors import NotRunError
from linepool.ipc.board import WorkerView
from linepool.service import Entry


class Brakes:
    """The braked commands, as this worker knows them.

    Args:
        entries: All commands.
        board: Where the master publishes them.
        pause: Seconds that a command is refused at most; whatever the board says.

    Attributes:
        seen: What ``board.brakes()`` returned when they were applied last.
    """

    def __init__(self, entries: Sequence[Entry], board: WorkerView, pause: float) -> None:
        self.seen = 0
        self._entries = entries
        self._board = board
        self._pause_ns = int(pause * 1e9)
        self._calls: list[tuple[Entry, Callable[..., Any]]] = []  # as they were before

    def apply(self) -> None:
        """Refuse the commands that the board names, and serve all others."""
        self.seen = self._board.brakes()
        for entry, call in self._calls:
            entry.call = call
        self._calls.clear()
        for entry in self._entries:
            if until_ns := self._board.braked_until(entry.shown):
                self._calls.append((entry, entry.call))
                entry.call = self._refusing(entry, until_ns)

    def _refusing(self, entry: Entry, until_ns: int) -> Callable[..., Any]:
        call = entry.call

        def refuse(request: Any, conversation: Any) -> Any:
            left_ns = until_ns - time.monotonic_ns()
            if not 0 < left_ns <= self._pause_ns:
                return call(request, conversation)
            self._board.count_braked()
            seconds = math.ceil(left_ns / 1e9)
            raise NotRunError(f"{entry.name} is refused for {seconds} s: workers died of it")

        return refuse
