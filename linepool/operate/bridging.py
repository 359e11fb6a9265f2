"""The bridge, as the master keeps it: a helper process that passes messages to other machines, and from them.

Runs in the master, and in each new bridge until that begins its work.
"""

from __future__ import annotations

import importlib.util
import logging
import math
import selectors
import socket
from collections.abc import Callable

from linepool.errors import SetupError
from linepool.kernel.title import set_title
from linepool.master.helper import Helper
from linepool.master.master import Master
from linepool.pubsub.bus import Bus
from linepool.settings import written

log = logging.getLogger("linepool")


class Bridging:
    """Keeps a bridge alive; what the master's loop watches.

    Args:
        master: The master.
        become_user: Has a new bridge become the user that serves.

    Attributes:
        due_at: When to call ``turn``, on the monotonic clock.

    Raises:
        SetupError: The package that the bridge needs is missing.
    """

    def __init__(self, master: Master, become_user: Callable[[], None]) -> None:
        if importlib.util.find_spec("redis") is None:
            raise SetupError("bridge needs redis-py: pip install 'linepool[bridge]'")
        self.due_at = 0.0
        self._master = master
        self._become_user = become_user
        self._bus: Bus | None = None  # in the bridge

    @property
    def pid(self) -> int | None:
        """The pid of the bridge; None: there is none now."""
        process = self._helper.process
        return process.pid if process else None

    def open(self, selector: selectors.BaseSelector) -> None:
        """Prepare the bridge; ``turn`` starts it."""
        self._helper = Helper(
            "bridge", selector, self._leave_master, self._work, lambda: None, self._on_end
        )

    def turn(self) -> None:
        """Start the bridge if there is none, once an app publishes messages."""
        if not self._master.has_bus:
            self.due_at = math.inf  # the loop turns after a reload anyway
            return
        self._helper.turn()
        self.due_at = self._helper.start_at if self._helper.channel is None else math.inf

    def close(self) -> None:
        """End the bridge, in the master."""
        self._helper.close()

    def abandon(self) -> None:
        """Close a new process's copies."""
        self._helper.abandon()

    def _leave_master(self) -> None:
        self._bus = self._master.keep_bus()
        self._master.close_inherited()

    def _work(self, channel: socket.socket) -> None:
        """Be the bridge, to its end."""
        # It takes time and memory that no other process needs.
        from linepool.bridge.bridge import Bridge  # noqa: PLC0415

        assert self._bus is not None
        name, url = self._master.generation.facts.name, self._master.settings.bridge
        set_title("bridge", name)
        self._become_user()
        with channel:
            Bridge(self._bus, url, written("bridge", url), name).run(channel)

    def _on_end(self, how: str) -> bool:
        log.error("bridge died %s", how)
        self.due_at = 0.0
        return not self._master.stopping
