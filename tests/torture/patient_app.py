"""The app of the experiment with requests that wait: that of the others, and items that are waited for.

An item has in the database the process and the request that took it. Each look of a request is journaled, as
``?7:8.5``: at 8.5 (monotonic) the handler ran for request 7.
"""

from __future__ import annotations

import time

from experiment_app import Journal, proof
from waiting_app import Store  # which has PUT

import linepool


@linepool.handler("AWAIT")
def await_item(
    request: int,
    queue: str,
    timeout: float,
    store: Store,
    journal: Journal,
    waited: linepool.Waited,
) -> str | linepool.Wait:
    """Take an item of a queue, or wait for one until the time is up; return the proof and the item."""
    journal.write(f"?{request}:{time.monotonic()}")
    item = store.take(queue, request)
    if item is None and not waited.expired:
        return linepool.Wait(queue, timeout=timeout, then="its time was not up")
    journal.write(f"+{request}")
    journal.write(f"-{request}")
    return f"{proof(request, journal)} {item}"


@linepool.handler("CLOCK")
def wall_clock() -> float:
    """Return the time of the wall clock."""
    return time.time()
