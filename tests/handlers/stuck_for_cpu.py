"""Handlers that keep a processor busy."""

from __future__ import annotations

import os
import time

import linepool


@linepool.handler
def add(a: int, b: int) -> int:
    """Add two whole numbers."""
    return a + b


@linepool.handler
def burn(path: str) -> str:
    """Keep a processor busy until a file is there."""
    while not os.path.exists(path):
        burn_for(0.01)
    return "burnt"


@linepool.handler
def burn_for(seconds: float) -> None:
    """Keep a processor busy for some time."""
    give_up_at = time.monotonic() + seconds
    while time.monotonic() < give_up_at:
        pass
