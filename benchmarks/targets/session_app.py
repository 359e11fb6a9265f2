"""A sum that its connection remembers, with middleware that counts the requests of each connection."""

from __future__ import annotations

from collections.abc import Callable

import linepool


@linepool.middleware
def count(
    request: linepool.Request, session: linepool.Session, call_next: Callable[..., object]
) -> object:
    session["requests"] = session.get("requests", 0) + 1
    return call_next(request)


@linepool.handler
def add(a: int, b: int, session: linepool.Session) -> int:
    """Add two whole numbers."""
    session["last"] = total = a + b
    return total
