"""When the worker's second thread may use the tables of the main thread.

Runs in workers. Both threads use the worker's tables (``table``, ``handoff``, and the acceptor). The main
thread uses them without a lock, except at a safe point, when the second one may.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

from linepool import core

T = TypeVar("T")


class SafePoint(core.SafePointFields):
    """Whether the main thread leaves its tables alone: then the second one may use them.

    It does while it answers a batch of requests, and while it runs hooks.

    The main thread says so for each batch of requests, and a lock would cost more than that. Each of
    the two first writes its own mark and then reads the other's, so at least one of them sees that it
    has to wait: the interpreter runs one thread at a time, each in the order of its program.

    Attributes:
        is_open: The main thread is at a safe point; it alone writes this.
        is_wanted: The second thread waits for one, or uses the tables.
        evacuate: Hands off all connections but the one that is being served.
    """

    def __init__(self) -> None:
        self.is_open = False
        self.is_wanted = False
        self.evacuate: Callable[[], None] = _nothing
        self._lock = threading.Lock()

    def run(self, call: Callable[[], T]) -> T:
        """Call what runs code of the app's. May be called by: the main thread only."""
        self.is_open = True
        try:
            return call()
        finally:
            self.is_open = False
            if self.is_wanted:
                self.wait()

    def wait(self) -> None:
        """Wait until the second thread is done. May be called by: the main thread only."""
        with self._lock:
            pass

    def evacuate_here(self) -> None:
        """Evacuate, because a client does not read. May be called by: the main thread only."""
        was_open, self.is_open = self.is_open, False
        try:
            if self.is_wanted:
                self.wait()
            self.evacuate()
        finally:
            self.is_open = was_open

    @contextlib.contextmanager
    def entered(self) -> Iterator[bool]:
        """Use the tables if it gives True. May be called by: the second thread."""
        with self._lock:
            self.is_wanted = True
            try:
                yield self.is_open
            finally:
                self.is_wanted = False


def _nothing() -> None:
    """Do nothing; what is evacuated is not known yet."""
