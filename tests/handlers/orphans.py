"""An app that leaves processes behind in its workers, and waits for one in the master."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from pathlib import Path

import linepool


@linepool.on_start
def start_child() -> None:
    """Start a child of the master, and write its exit status to a file when it ends."""
    # In a session of its own: at the end of a child of another group, the kernel hangs up the group if it has
    # no parent outside and a stopped process (setpgid(2)): that of the tests, with what they have stopped.
    command = ["sh", "-c", "read line; exit 7"]
    child = subprocess.Popen(command, stdin=os.open("go", os.O_RDWR), start_new_session=True)
    threading.Thread(
        target=lambda: Path("status").write_text(str(child.wait())), daemon=True
    ).start()


@linepool.handler
def leave_orphans(count: int) -> str:
    """Start processes that outlive their parent for a moment; return their pids."""
    script = f"for _ in $(seq {count}); do sleep 0.05 > /dev/null & echo $!; done"
    return subprocess.check_output(["sh", "-c", script], text=True).replace("\n", " ")


@linepool.handler
def remaining(pids: linepool.Rest) -> int:
    """Count the processes that are there, zombies included."""
    return sum(Path("/proc", pid).exists() for pid in pids.split())


@linepool.handler
def die() -> None:
    """End the worker by a signal."""
    os.kill(os.getpid(), signal.SIGABRT)
