"""When a call must be done: its own timeout, the deadlines around it, and that of the request it is made for.

All times are seconds on the monotonic clock.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from contextvars import ContextVar
from time import monotonic

from linepool import in_flight
from linepool.client.errors import CallTimeout

_until: ContextVar[float] = ContextVar("linepool.client.deadline", default=math.inf)


@contextlib.contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Give all calls in a block until so many seconds from now, whatever their own timeouts are.

    A block within another one can only shorten that. Tasks and contexts that are made in the block have its
    deadline too; threads do not. Without time left (0 or less) calls fail before anything is sent.

    Raises:
        ValueError: The seconds are NaN.
    """
    if math.isnan(seconds):
        raise ValueError("deadline must be seconds from now, not NaN")
    token = _until.set(min(_until.get(), monotonic() + seconds))
    try:
        yield
    finally:
        _until.reset(token)


def deadline_of(timeout: float | None) -> float:
    """Return when a call that begins now must be done; without limit: infinity.

    Args:
        timeout: The call's own, in seconds; None: it has none.

    Raises:
        CallTimeout: No time is left.
    """
    now = monotonic()
    own = math.inf if timeout is None else now + timeout
    until = _until.get()
    if in_flight.request is not None and (overdue_ns := in_flight.overdue_ns()):
        until = min(until, overdue_ns / 1e9)
    if own <= until:
        return own
    if until <= now:
        raise CallTimeout("no time is left for the call; nothing was sent")
    return until
