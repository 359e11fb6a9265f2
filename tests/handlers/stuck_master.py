"""An app whose master is not scheduled for a while after it has read a full status pipe."""

from __future__ import annotations

import time

import common  # noqa: F401 - registers its handlers

import linepool
from linepool.ipc.status_pipe import StatusPipe


@linepool.on_start
def lose_the_processor() -> None:
    """Lengthen an interval that is short on an idle machine."""
    drain = StatusPipe.drain

    def drain_slowly(self: StatusPipe) -> bytes:
        data = drain(self)
        if self.may_have_refused(data):
            time.sleep(0.01)
        return data

    StatusPipe.drain = drain_slowly  # type: ignore[method-assign]
