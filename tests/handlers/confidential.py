"""Handlers whose words are confidential, and that hang or crash."""

import os
import signal
import time

import linepool


def _do(how: str) -> None:
    if how == "crash":
        os.kill(os.getpid(), signal.SIGKILL)
    try:
        time.sleep(60)
    except linepool.RequestTimeout:
        if how == "late":
            raise
        time.sleep(60)


@linepool.handler
def login(user: str, how: str, password: linepool.Secret) -> None:
    """Hang or crash with a secret."""
    _do(how)


@linepool.handler
def look(user: str, how: str, where: str) -> None:
    """Hang or crash without one."""
    _do(how)


@linepool.unknown
def unknown(verb: linepool.Verb, rest: linepool.Rest) -> None:
    """Fail."""
    raise ValueError("unknown command")
