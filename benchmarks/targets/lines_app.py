"""What load.py asks of linepool: a sum, and a handler that blocks."""

from __future__ import annotations

import time

import linepool


@linepool.handler
def add(a: int, b: int) -> int:
    """Add two whole numbers."""
    return a + b


@linepool.handler
def sleep(ms: int) -> None:
    """Block for so many milliseconds, as a slow database would."""
    time.sleep(ms / 1000)
