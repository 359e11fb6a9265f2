"""The orphans that process 1 of a container inherits: they are reaped when they end.

Runs in the master. A process whose parent has ended becomes a child of process 1, and no other process
can reap it: it would stay as a zombie until the container ends.
"""

from __future__ import annotations

import contextlib
import os

from linepool.kernel.pidfd import ChildProcess


class Orphans:
    """The children of this process that it has not started, if it is process 1.

    What the app has started before stays the app's: it may want to know how that ended.
    """

    def __init__(self) -> None:
        self._is_first = os.getpid() == 1
        self._of_the_app = _children() if self._is_first else set()

    def reap(self) -> None:
        """Reap those that have ended."""
        if not self._is_first:
            return
        for pid in _children() - self._of_the_app - ChildProcess.unreaped:
            with contextlib.suppress(ChildProcessError):
                os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG)


def _children() -> set[int]:
    """Return the pids of this process's children (proc(5), children)."""
    pid = os.getpid()
    with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{pid}/children", "rb") as file:
        return {int(child) for child in file.read().split()}
    return set()
