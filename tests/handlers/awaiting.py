"""Requests that wait without a worker, for tests of what is shown of them."""

import linepool


@linepool.handler
def take(queue: str, waited: linepool.Waited, timeout: float = 600) -> str | linepool.Wait:
    """Wait until a queue is named."""
    if waited.topic:
        return "woken"
    return linepool.Wait(queue, timeout=timeout, then="none")


@linepool.handler
def fetch(first: str, second: str) -> linepool.Wait:
    """Wait for two topics, of which the second has bytes that are not text."""
    return linepool.Wait(first, b"\xff\x1b " + second.encode(), then="none")


@linepool.handler
def put(queue: str, waiters: linepool.Waiters) -> None:
    """Name a queue."""
    waiters.publish(queue)
