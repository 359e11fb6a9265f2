"""What the log and the incidents say of a worker that has died by itself. Runs in the master."""

from __future__ import annotations

import logging
import time

from linepool.ipc.board import SlotSnapshot
from linepool.kernel.signals import signal_name
from linepool.master import stack_text
from linepool.master.incidents import DIED, Incidents
from linepool.master.worker_handle import WorkerHandle
from linepool.pool.scoreboard import WorkerState

log = logging.getLogger("linepool")


def tell_death(
    incidents: Incidents, worker: WorkerState, status: int, last: SlotSnapshot, handle: WorkerHandle
) -> None:
    """Log that a worker has died, and note it.

    Pre-condition: its slot has not been used again.

    Args:
        incidents: Where it is noted.
        worker: What was known of it.
        status: Its exit status, or minus the signal that ended it.
        last: What it did last.
        handle: The master's ends of it.
    """
    logged = handle.generation.logged(last.command, last.line) if last.started_ns else None
    crash = handle.crash(status)
    log.error(
        "worker died pid=%d %s command=%s requests=%d id=%s%s",
        worker.pid,
        f"status={status}" if status >= 0 else f"signal={signal_name(-status)}",
        logged.words if logged else "-",
        last.requests,
        logged.id if logged else "-",
        stack_text.below(crash),
        extra={"command": logged.name if logged else ""},
    )
    incidents.note(
        DIED,
        stack_text.calls_of(stack_text.of_main_thread(crash)),
        command=logged.name if logged else "",
        pid=worker.pid,
        slot=worker.slot,
        generation=worker.generation,
        ran_s=(time.monotonic_ns() - last.started_ns) / 1e9 if logged else None,
        limit_s=(last.limit_ns / 1e9 or None) if logged else None,
        signal=signal_name(-status) if status < 0 else None,
        status=status if status >= 0 else None,
        id=logged.given_id if logged else "",
    )
