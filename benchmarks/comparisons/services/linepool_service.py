"""The service on linepool: linepool run linepool_service.py --bind 127.0.0.1:7000."""

from __future__ import annotations

import time

import work

import linepool

VERSION = 1


@linepool.handler
def collatz(n: int) -> int:
    """Count the Collatz steps from n to 1."""
    return work.collatz(n)


@linepool.handler
def sleep(seconds: float) -> None:
    """Wait, as for a slow database."""
    time.sleep(seconds)


@linepool.handler
def crash() -> None:
    """Crash the process."""
    work.crash()


@linepool.handler
def version() -> int:
    """Return the version of the code."""
    return VERSION
