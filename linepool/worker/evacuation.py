"""The second thread of a worker: it hands connections off while the main thread runs a handler.

Runs in workers. While one request takes long, it hands the worker's other connections off, when the
master asks for it. When the master has ended, it shuts the listeners, so that their addresses are
free for the next master though a request is in flight. A thread and not a signal: the handler of a
signal does not run while a database driver waits in C; the thread does, unless the code holds the
interpreter.

It uses the worker's tables only at a safe point of the main thread, see ``safe_point``.
"""

from __future__ import annotations

import logging
import os
import select
import threading
import time

from linepool.ipc.board import WorkerView
from linepool.kernel.listeners import Listener
from linepool.kernel.signals import signals_blocked
from linepool.worker.orders import Orders
from linepool.worker.safe_point import SafePoint

log = logging.getLogger("linepool")


def start(
    bell: int,
    after: float,
    board: WorkerView,
    orders: Orders,
    safe_point: SafePoint,
    listeners: list[Listener],
) -> None:
    """Start the thread.

    Args:
        bell: An eventfd that the master writes to when the other connections should be handed off.
        after: That is done only for a request that has run this long, in seconds.
        board: Says how long the request in flight has run.
        orders: Learns that the master has ended.
        safe_point: Of the main thread.
        listeners: Those of the server.
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
                        try:
                            safe_point.evacuate()
                        except Exception:
                            log.exception("connections cannot be handed off")
        orders.master_ended()
        for listener in listeners:
            listener.shut()

    # It inherits the mask: a signal that it took would not end what the main thread waits in.
    with signals_blocked():
        threading.Thread(target=run, name="linepool-evacuation", daemon=True).start()
