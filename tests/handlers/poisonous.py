"""Handlers that end their worker, with middleware that may come between."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any

import common  # noqa: F401 - registers its handlers

import linepool


@linepool.handler("POISON")
def poison(how: str) -> str:
    """End the worker, or do nothing."""
    if how in _WAYS:
        _WAYS[how]()
    return how


@linepool.unknown
def other(verb: linepool.Verb) -> str:
    """End the worker."""
    os._exit(4)


@linepool.middleware
def renamed(
    request: linepool.Request, session: linepool.Session, call_next: Callable[..., Any]
) -> Any:
    """Have PILL do what POISON does."""
    if request.verb == b"PILL":
        request = linepool.Request(b"POISON", request.words, _entry_of(session))
    return call_next(request)


def _entry_of(_session: linepool.Session) -> Any:
    from common import current_worker

    (service,) = current_worker()._spec.services.values()
    return service.find(b"POISON")


@linepool.handler("PILL")
def pill(_how: str) -> None:
    """Never be called."""


def _hang() -> None:
    while True:
        try:
            time.sleep(60)
        except BaseException:  # noqa: BLE001 - this one is meant to be bad
            continue


_WAYS: dict[str, Callable[[], object]] = {
    "exit": lambda: os._exit(3),
    "exit0": lambda: os._exit(0),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "hang": _hang,
}
