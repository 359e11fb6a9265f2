"""The second thread of a worker: it hands connections off while the main thread runs a handler.

Runs in workers. While one request takes long, it hands the worker's other connections off, when the
master asks for it, and writes down the stack of a slow handler, for the log. When the master has ended,
it shuts the listeners, so that their addresses are free for the next master though a request is in
flight. A thread and not a signal: the handler of a signal does not run while a database driver waits in
C; the thread does, unless the code holds the interpreter.

It uses the worker's tables only at a safe point of the main thread, see ``safe_point``.
"""

from __future__ import annotations

import logging
import os
import select
import sys
import threading
import time
from types import FrameType

from linepool.ipc.board import WorkerView
from linepool.kernel.listeners import Listener
from linepool.kernel.pipes import take
from linepool.kernel.signals import signals_blocked
from linepool.worker.orders import Orders
from linepool.worker.safe_point import SafePoint

log = logging.getLogger("linepool")


LOOK = 1 << 32
"""What the master adds to the counter to have the stacks written; 1: to have connections handed off."""
_MOST_FRAMES = 100


def start(
    bell: int,
    stack_file: int,
    after: float,
    board: WorkerView,
    orders: Orders,
    safe_point: SafePoint,
    listeners: list[Listener],
) -> None:
    """Start the thread.

    Args:
        bell: A counter that the master adds 1 to when the other connections should be handed off, and
            ``LOOK`` when the stacks should be written.
        stack_file: Where to.
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
                asked = take(bell)
                if not asked:  # a pipe whose other end is closed
                    poller.unregister(bell)
                if asked >= LOOK:
                    os.write(stack_file, _stacks().encode("utf-8", "replace"))
                with safe_point.entered() as is_safe:
                    is_long = board.running_ns(time.monotonic_ns()) >= after_ns
                    if is_safe and is_long and asked % LOOK:
                        try:
                            safe_point.evacuate()
                        except BaseException:
                            log.exception("connections cannot be handed off")
        orders.master_ended()
        for listener in listeners:
            listener.shut()

    # It inherits the mask: a signal that it took would not end what the main thread waits in.
    with signals_blocked():
        threading.Thread(target=run, name="linepool-evacuation", daemon=True).start()


def _stacks() -> str:
    """Return the stacks of all other threads as faulthandler writes them, that of the main thread last.

    A signal, which would have faulthandler do so, could end a call that the handler waits in.
    """
    frames = sys._current_frames()
    frames.pop(threading.get_ident(), None)
    main = threading.main_thread().ident or 0
    threads = []
    for ident in sorted(frames, key=lambda ident: ident == main):
        name = "Current thread" if ident == main else "Thread"
        lines = [f"{name} 0x{ident:016x} (most recent call first):"]
        frame: FrameType | None = frames[ident]
        while frame is not None and len(lines) <= _MOST_FRAMES:
            code = frame.f_code
            lines.append(f'  File "{code.co_filename}", line {frame.f_lineno} in {code.co_name}')
            frame = frame.f_back
        threads.append("\n".join(lines) + "\n")
    return "\n".join(threads)
