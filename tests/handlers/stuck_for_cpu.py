"""Handlers that keep a processor busy."""

from __future__ import annotations

import os
import time

import common  # noqa: F401 - registers its handlers

import linepool


@linepool.handler
def burn(path: str) -> str:
    """Keep a processor busy until a file exists."""
    while not os.path.exists(path):
        burn_for(0.01)
    return "burnt"


@linepool.handler
def burn_for(seconds: float) -> None:
    """Keep a processor busy for some seconds."""
    give_up_at = time.monotonic() + seconds
    while time.monotonic() < give_up_at:
        pass
