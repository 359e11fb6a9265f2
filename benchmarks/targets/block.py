"""What pool_burst.py has linepool run: each request blocks."""

from __future__ import annotations

import os
import time

import linepool

_BLOCK = float(os.environ.get("BLOCK_SECONDS", "2"))


@linepool.handler
def block() -> None:
    """Block for $BLOCK_SECONDS."""
    time.sleep(_BLOCK)
