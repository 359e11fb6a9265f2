"""The second thread of a worker: it hands on the other connections while one request takes long.

Runs in workers of the schemes that hand on. It sleeps until the master rings, and acts only while a
handler runs, when the worker's tables are at rest. A thread and not a signal: a signal's handler does
not run while a database driver waits in C; the thread does, unless the code holds the interpreter.
"""

from __future__ import annotations

import os
import threading
import time

from linepool.ipc.board import STARTED_NS
from linepool.kernel.signals import signals_blocked
from linepool.worker.context import Station
from linepool.worker.loop import Sharing


def start(bell: int, station: Station, sharing: Sharing) -> None:
    """Start it.

    Args:
        bell: An eventfd that the master writes to.
        station: The worker's.
        sharing: The connections that are handed on.
    """
    thread = threading.Thread(
        target=_run, args=(bell, station, sharing), name="linepool-second", daemon=True
    )
    # It inherits the mask: a signal that it took would not end what the main thread waits in.
    with signals_blocked():
        thread.start()


def _run(bell: int, station: Station, sharing: Sharing) -> None:
    words = station.slot.words
    after_ns = int(station.settings.hand_off_after * 1e9)
    while True:
        os.eventfd_read(bell)
        with station.rest.used() as is_at_rest:
            started_ns = words[STARTED_NS]
            if is_at_rest and started_ns and time.monotonic_ns() - started_ns >= after_ns:
                sharing.make_way()
