"""The same command twice, quick and slow; for the benchmark ``slow_server``."""

from __future__ import annotations

import time

import linepool

quick, slow = linepool.App(), linepool.App()


@quick.handler("ANSWER")
def answer_quickly() -> str:
    """Take a millisecond."""
    time.sleep(0.001)
    return "quick"


@slow.handler("ANSWER")
def answer_slowly() -> str:
    """Take twenty times as long."""
    time.sleep(0.02)
    return "slow"
