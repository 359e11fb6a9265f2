"""When a connection is old, by the setting ``connection_max_age``. Pure: no I/O. Used in workers.

A connection that is old ends right behind a reply, so that its client learns of it before the next request,
or when it has been quiet for a while.
"""

from __future__ import annotations

import math

QUIET_S = 1.0
"""For so long an old connection is to be quiet before it ends without a reply: one in use sends more."""
_JITTER = 0.1  # of the age
_SPREAD = 2654435761  # Knuth's multiplier: cookies are consecutive, what is made of them is not
_RANGE = 1 << 32


def old_at(max_age: float, accepted_at: float, cookie: int) -> float:
    """Return when a connection is old, up to a tenth earlier than its age says; infinite: never.

    That part follows from the cookie of its socket, so that it is the same in each process.

    Args:
        max_age: In seconds; 0: none is.
        accepted_at: When it was accepted, on the monotonic clock.
        cookie: Of its socket.
    """
    if not max_age:
        return math.inf
    return accepted_at + max_age * (1 - _JITTER * (cookie * _SPREAD % _RANGE) / _RANGE)
