"""Apps of other protocols whose requests wait."""

from __future__ import annotations

from pathlib import Path

import linepool

EVENTS = Path("events")


def wait(topic: str, timeout: float = 30.0) -> str | linepool.Wait:
    """Wait until the topic is woken."""
    if EVENTS.exists() and topic in EVENTS.read_text().splitlines():
        return f"woken {topic}"
    return linepool.Wait(topic, timeout=timeout, then="time is up")


def wake(topic: str, waiters: linepool.Waiters) -> str:
    """Wake one request."""
    with EVENTS.open("a") as events:
        events.write(f"{topic}\n")
    waiters.notify(topic)
    return "done"


def ping() -> str:
    """Answer at once."""
    return "pong"


def _with_handlers(app: linepool.App) -> linepool.App:
    for function in (wait, wake, ping):
        app.handler(function)
    return app


line = _with_handlers(linepool.App("line"))
resp = _with_handlers(linepool.App("resp", protocol=linepool.Resp(transactions=True)))
rpc = _with_handlers(linepool.App("rpc", protocol=linepool.JsonRpc()))
mail = _with_handlers(linepool.App("mail", protocol=linepool.Dialogue()))
overtaking = _with_handlers(linepool.App("overtaking", protocol=linepool.JsonRpc(overtaking=True)))
