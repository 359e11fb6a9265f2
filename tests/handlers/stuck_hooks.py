"""Hooks that take as long as a test wants."""

from __future__ import annotations

import os
import time

import linepool


@linepool.on_connect
def greet() -> None:
    """Be slow to greet."""
    time.sleep(float(os.environ["GREETING"]))


@linepool.handler
def pid() -> int:
    """Return the worker's pid."""
    return os.getpid()


@linepool.handler
def nap(seconds: float) -> str:
    """Be slow."""
    time.sleep(seconds)
    return "awake"
