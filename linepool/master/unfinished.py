"""The access log's line for a request that has ended with its worker. Runs in the master.

The loader of the generation in force writes it: it has the log open, and knows its format.
"""

from __future__ import annotations

import contextlib
import time

from linepool.ipc.board import SlotSnapshot
from linepool.master.generation import Generation
from linepool.master.worker_handle import WorkerHandle
from linepool.settings.access import OFF


def tell(
    in_force: Generation, last: SlotSnapshot, handle: WorkerHandle, command: str, pid: int
) -> None:
    """Have the access log say that a dead worker has taken a request along; nothing if it was idle.

    Args:
        in_force: The generation whose loader writes.
        last: What the worker did last.
        handle: The master's ends of it.
        command: The name of the command.
        pid: The worker's.
    """
    if not last.started_ns or in_force.settings.access_log == OFF:
        return
    facts = {
        "command": command,
        "line": last.line.decode("latin-1"),
        "client": handle.client,
        "began_ns": last.started_ns,
        "ended_ns": time.monotonic_ns(),
        "pid": pid,
        "killed": handle.is_killed,
    }
    with contextlib.suppress(OSError):  # the loader has ended
        in_force.loader.send("UNFINISHED", facts)
