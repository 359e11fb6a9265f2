"""A drain that is announced first: load balancers are told, and the pool serves on meanwhile.

Runs in the master.
"""

from __future__ import annotations

import logging
import math
import selectors
import time
from collections.abc import Callable

log = logging.getLogger("linepool")

MOST_SECONDS = 1e6
_AGAIN_S = 1.0  # after which it is tried again where it cannot be


class PlannedDrain:
    """The drain that is planned, if one is.

    Args:
        drain: Drains the pool; returns why that cannot be now, or "".

    Attributes:
        due_at: When it begins, on the monotonic clock; infinite: none is planned.
    """

    def __init__(self, drain: Callable[[], str]) -> None:
        self.due_at = math.inf
        self._drain = drain

    def __bool__(self) -> bool:
        return self.due_at < math.inf

    def begin(self, seconds: float) -> None:
        """Announce the drain, which begins after some seconds."""
        log.info("draining in %g s: load balancers are told, workers serve on", seconds)
        self.due_at = time.monotonic() + seconds

    def cancel(self) -> None:
        """Forget it: the pool is drained, or is wanted again."""
        self.due_at = math.inf

    def open(self, selector: selectors.BaseSelector) -> None:
        """Register nothing."""

    def turn(self) -> None:
        """Begin it if it is due."""
        now = time.monotonic()
        if now >= self.due_at:
            self.due_at = now + _AGAIN_S if self._drain() else math.inf

    def close(self) -> None:
        """Nothing to end."""

    def abandon(self) -> None:
        """Nothing to close."""
