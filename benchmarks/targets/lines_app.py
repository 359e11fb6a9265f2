"""The commands that the benchmarks send to linepool: a sum, and a handler that sleeps."""

from __future__ import annotations

import time

import linepool


@linepool.handler
def add(a: int, b: int) -> int:
    """Add two whole numbers."""
    return a + b


@linepool.handler
def sleep(ms: int) -> None:
    """Sleep for some milliseconds, as a slow database would."""
    time.sleep(ms / 1000)
