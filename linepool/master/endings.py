"""How a worker has ended, for the hooks of the server. Runs in the master."""

from __future__ import annotations

import time

from linepool.events import HOW, WorkerEnd
from linepool.ipc.board import Order, SlotSnapshot
from linepool.kernel.signals import signal_name
from linepool.master.worker_handle import WorkerHandle
from linepool.pool.scoreboard import WorkerState


def end_of(
    worker: WorkerState,
    status: int,
    last: SlotSnapshot,
    handle: WorkerHandle,
    *,
    order: int,
    recycled: str,
    in_force: int,
) -> WorkerEnd:
    """Return how a worker has ended.

    Args:
        worker: What was known of it.
        status: Its exit status, or minus the signal that ended it.
        last: What it did last.
        handle: The master's ends of it.
        order: What it was ordered.
        recycled: The setting because of which it was recycled; "": it was not.
        in_force: The number of the generation in force.
    """
    is_busy = bool(last.started_ns)
    how, why = _how(worker, status, handle, order, recycled, in_force, is_busy=is_busy)
    return WorkerEnd(
        pid=worker.pid,
        slot=worker.slot,
        generation=worker.generation,
        how=how,
        why=why,
        command=handle.generation.logged(last.command, last.line).name if is_busy else "",
        requests=last.requests,
        seconds=round(time.monotonic() - worker.spawned_ns / 1e9, 3),
    )


def _how(
    worker: WorkerState,
    status: int,
    handle: WorkerHandle,
    order: int,
    recycled: str,
    in_force: int,
    *,
    is_busy: bool,
) -> tuple[HOW, str]:
    if handle.is_killed:
        return "killed", handle.why
    if status < 0:
        return "died", f"signal {signal_name(-status)}"
    if status or (is_busy and not worker.retiring):
        return "died", f"exit status {status}"
    if order == Order.STOP:
        return "stopped", ""
    if recycled:
        return "recycled", recycled
    if worker.retiring:
        return ("retired" if worker.generation == in_force else "replaced"), ""
    return "left", ""
