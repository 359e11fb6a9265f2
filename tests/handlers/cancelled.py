"""An app whose hooks raise what is not an ``Exception``, as asyncio does when a task is cancelled."""

from __future__ import annotations

import asyncio
import os

from common import pid

import linepool
from linepool import App, ClientError, Reply

PLACE = os.environ.get("CANCELLED_IN", "")
app = App("cancelled")
app.handler(pid)


class Silent(ClientError):  # noqa: N818 - named after what it lacks
    """An error without a text."""

    def __str__(self) -> str:
        raise ValueError("no text")


def cancel(place: str) -> None:
    """Raise, if this is the place."""
    if place == PLACE:
        raise asyncio.CancelledError(place)


@app.on_connect
def greet() -> None:
    """Be cancelled."""
    cancel("on_connect")


@app.on_disconnect
def part() -> None:
    """Be cancelled."""
    cancel("on_disconnect")


@app.on_error
def report(exception: BaseException, request: object, session: linepool.Session) -> None:
    """Be cancelled."""
    cancel("on_error")


@app.handler
def fail() -> None:
    """Have ``on_error`` called."""
    raise LookupError("in a handler")


@app.handler
def refuse() -> None:
    """Raise an error that is a reply, but has no text."""
    raise Silent


@app.handler
def text() -> Reply:
    """Return a text where bytes are wanted."""
    return Reply(raw="text")  # type: ignore[arg-type]
