"""The app of torture_status.py: handlers that keep their workers busy."""

import time

import linepool


@linepool.handler
def sleep() -> None:
    """Sleep as long as the test takes."""
    time.sleep(1000)


@linepool.handler
def compute() -> None:
    """Compute as long as the test takes."""
    while True:
        pass


@linepool.handler
def short() -> str:
    """Reply at once."""
    return "x" * 100
