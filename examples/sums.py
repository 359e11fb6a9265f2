"""Sums: the smallest service.

linepool run examples/sums.py --bind 127.0.0.1:7000
"""

from collections.abc import Iterator

import linepool


@linepool.handler
def add(a: int, b: int) -> int:
    """Add two whole numbers."""
    return a + b


@linepool.handler("MEAN", "AVERAGE")
def mean(first: float, *more: float) -> float:
    """Return the mean of one or more numbers."""
    return (first + sum(more)) / (1 + len(more))


@linepool.handler
def divide(a: float, b: float) -> float:
    """Divide two numbers."""
    if b == 0:
        raise linepool.ClientError("b must not be 0.")
    return a / b


@linepool.handler
def countdown(start: int) -> Iterator[int]:
    """Count down to 1, one number per line."""
    yield from range(start, 0, -1)


if __name__ == "__main__":
    linepool.run()
