"""Handlers that read or write what their connection remembers, behind middleware that reads it, too."""

from __future__ import annotations

from collections.abc import Callable

import linepool


@linepool.middleware
def admit(
    request: linepool.Request, session: linepool.Session, call_next: Callable[..., object]
) -> object:
    if session.get("banned"):
        raise linepool.ClientError("not you")
    return call_next(request)


@linepool.handler
def add(a: int, b: int, session: linepool.Session) -> int:
    """Add two whole numbers, and what was noted."""
    noted: int = session.get("noted", 0)
    return a + b + noted


@linepool.handler
def note(number: int, session: linepool.Session) -> int:
    """Remember a number."""
    session["noted"] = number
    return number
