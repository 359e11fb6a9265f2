"""An error in the log if the file of a unix socket is gone: the server runs, and no client finds it.

Runs in the master. A program that cleans up /tmp removes such files, as careless code does; the kernel has
no way to bind a socket a second time.
"""

from __future__ import annotations

import logging
import math
import selectors
import time

from linepool.master.master import Master

log = logging.getLogger("linepool")

_LOOK_EVERY = 30.0  # seconds


class SocketFiles:
    """Looks at the files of the listeners; what the master's loop watches.

    Attributes:
        due_at: When to look again, on the monotonic clock; infinite: there is no such file.
    """

    def __init__(self, master: Master) -> None:
        self._master = master
        self._gone: set[str] = set()
        has_files = any(one.is_unix for one in master.listeners)
        self.due_at = time.monotonic() + _LOOK_EVERY if has_files else math.inf

    def open(self, selector: selectors.BaseSelector) -> None:
        """Register nothing: it only looks from time to time."""

    def turn(self) -> None:
        """Look, if it is time to; of each file that is gone, say so once."""
        now = time.monotonic()
        if now < self.due_at:
            return
        self.due_at = now + _LOOK_EVERY
        gone = {one.name for one in self._master.listeners if one.has_lost_file}
        for name in sorted(gone - self._gone):
            log.error("the file of a listener is gone; start the server again address=%s", name)
        self._gone = gone

    def close(self) -> None:
        """Close nothing."""

    def abandon(self) -> None:
        """Close nothing."""
