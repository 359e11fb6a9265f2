"""The orphans that the master inherits: they are reaped when they end.

Runs in the master. It is a subreaper (prctl(2), PR_SET_CHILD_SUBREAPER), so a process among its descendants
whose parent has ended becomes its child. Workers do so on purpose, see ``loader.births``; the others no
other process can reap, and they would stay as zombies until the server ends.
"""

from __future__ import annotations

import contextlib
import os

from linepool.kernel.children import children
from linepool.kernel.pidfd import ChildProcess
from linepool.kernel.signals import adopt_orphans


class Orphans:
    """The children of this process that it has not started.

    What the app has started before stays the app's: it may want to know how that ended.

    Attributes:
        of_the_app: The pids of those.
    """

    def __init__(self) -> None:
        adopt_orphans()
        self.of_the_app = children() - ChildProcess.unreaped

    def reap(self) -> None:
        """Reap those that have ended.

        Pre-condition: no worker is being born; it would be taken for an orphan.
        """
        for pid in children() - self.of_the_app - ChildProcess.unreaped:
            with contextlib.suppress(ChildProcessError):
                os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG)
