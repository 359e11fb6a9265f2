"""An app whose master loses the processor whenever it has read a full status pipe."""

from __future__ import annotations

import time

import linepool
from linepool.ipc.status_pipe import PIPE_FULL, StatusPipe


@linepool.on_start
def lose_the_processor() -> None:
    """Make the moment long that is short on a quiet machine."""
    drain = StatusPipe.drain

    def drain_slowly(self: StatusPipe) -> bytes:
        data = drain(self)
        if len(data) >= PIPE_FULL:
            time.sleep(0.01)
        return data

    StatusPipe.drain = drain_slowly  # type: ignore[method-assign]


@linepool.handler
def add(a: int, b: int) -> int:
    """Add two whole numbers."""
    return a + b
