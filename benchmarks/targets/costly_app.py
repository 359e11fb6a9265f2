"""A sum, and a command that costs as much as a few queries: what an attacker would choose."""

from __future__ import annotations

import linepool

_STEPS = 2000  # about 0.1 ms


@linepool.handler
def add(a: int, b: int) -> int:
    """Add two whole numbers."""
    return a + b


@linepool.handler
def costly() -> int:
    """Return 3, after some work."""
    return sum(number & 1 for number in range(_STEPS)) - _STEPS // 2 + 3
