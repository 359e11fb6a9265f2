"""Handlers for clients that have to log in."""

from __future__ import annotations

import os
import time

import linepool
from linepool import Secret, Session


@linepool.authenticate
def check(user: str, password: Secret, session: Session) -> bool:
    """Compare with the only password."""
    if user == "hang":
        time.sleep(60)
    return password == "right"


@linepool.handler
def whoami(session: Session) -> str:
    """Return the user's name."""
    return str(session.user)


@linepool.handler
def add(a: int, b: int) -> int:
    """Return the sum."""
    return a + b


@linepool.handler(public=True)
def pid() -> int:
    """Return the worker's pid."""
    return os.getpid()


@linepool.handler
def log_out(session: Session) -> None:
    """Forget the user."""
    session.user = None


@linepool.handler
def hang() -> None:
    """Sleep, whatever is raised."""
    while True:
        try:
            time.sleep(60)
        except BaseException:  # noqa: BLE001 - only a kill ends it
            continue


@linepool.handler(public=True)
def starttls() -> linepool.Reply:
    """Begin TLS."""
    return linepool.Reply("go", start_tls=True)
