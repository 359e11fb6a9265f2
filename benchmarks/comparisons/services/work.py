"""What all services serve: one function that has a bug, and one that crashes."""

from __future__ import annotations

import signal


def collatz(number: int) -> int:
    """Return how many Collatz steps lead from a number to 1. For 0 it never ends: a bug, on purpose."""
    steps = 0
    while number != 1:
        number = number * 3 + 1 if number % 2 else number // 2
        steps += 1
    return steps


def crash() -> None:
    """Crash the process, as a bug in a C library does."""
    signal.raise_signal(signal.SIGSEGV)
