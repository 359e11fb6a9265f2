"""The second thread of a worker: it acts for the others while the main thread runs a handler.

Runs in workers. While one request takes long, it hands the worker's other connections off, when the
master asks for it. When the master has ended, it closes the listeners, so that their addresses are
free for the next master though a request is in flight. A thread and not a signal: the handler of a
signal does not run while a database driver waits in C; the thread does, unless the code holds the
interpreter.

The main thread and this one share the worker's tables (``table``, ``handoff``, ``acceptor``). The main
thread uses them without a lock, except at a safe point, when this thread may.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from linepool.ipc.board import WorkerView
from linepool.kernel.signals import signals_blocked
from linepool.worker.orders import Orders

_RETRY = 0.02  # seconds between two looks for a safe point at which the listeners can be closed
T = TypeVar("T")


class SafePoint:
    """Whether the main thread runs code of the app's: then the second one may use the tables.

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
        """Call what runs code of the app's, or waits. May be called by: the main thread."""
        self.is_open = True
        try:
            return call()
        finally:
            self.close()

    def close(self) -> None:
        """End the safe point, once the second thread is done. May be called by: the main thread."""
        self.is_open = False
        if self.is_wanted:
            with self._lock:
                pass

    def evacuate_here(self) -> None:
        """Evacuate, because a client does not read. May be called by: the main thread."""
        was_open = self.is_open
        self.close()
        self.evacuate()
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


def start(
    bell: int,
    after: float,
    board: WorkerView,
    orders: Orders,
    safe_point: SafePoint,
    close_listeners: Callable[[], None],
) -> None:
    """Start the thread.

    Args:
        bell: An eventfd that the master writes to when the other connections should be handed off.
        after: That is done only for a request that has run this long, in seconds.
        board: Says how long the request in flight has run.
        orders: Learns that the master has ended.
        safe_point: Of the main thread.
        close_listeners: Called at a safe point when the master has ended.
    """

    def run() -> None:
        poller = select.poll()
        poller.register(bell, select.POLLIN)
        poller.register(orders.master, select.POLLIN)
        after_ns = int(after * 1e9)
        while orders.master not in (ready := [descriptor for descriptor, _ in poller.poll()]):
            if bell in ready:
                os.eventfd_read(bell)
                with safe_point.entered() as is_safe:
                    if is_safe and board.running_ns(time.monotonic_ns()) >= after_ns:
                        safe_point.evacuate()
        orders.master_ended()
        while True:
            with safe_point.entered() as is_safe:
                if is_safe:
                    close_listeners()
                    return
            time.sleep(_RETRY)

    # It inherits the mask: a signal that it took would not end what the main thread waits in.
    with signals_blocked():
        threading.Thread(target=run, name="linepool-evacuation", daemon=True).start()


def _nothing() -> None:
    """Do nothing; what is evacuated is not known yet."""
