"""How a record of the server's reaches the app's handlers, and whether one of them takes it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence


class Relay:
    """Gives a record to the app's handlers; for ``Logger.callHandlers``, a logger and its only handler.

    Libraries that replace that method see the record there, such as Sentry's integration.

    Args:
        handlers: The app's.

    Attributes:
        is_taken: Whether one of them has taken the record.
    """

    name = "linepool"
    level = logging.NOTSET
    propagate = False

    def __init__(self, handlers: Sequence[logging.Handler]) -> None:
        self.handlers = [self]
        self.is_taken = False
        self._handlers = handlers

    def handle(self, record: logging.LogRecord) -> None:
        """Give the record to each handler; note whether one has taken it."""
        self.is_taken = any([_takes(handler, record) for handler in self._handlers])


def _takes(handler: logging.Handler, record: logging.LogRecord) -> bool:
    """Give a record to a handler of the app's; return whether that has taken it."""
    if record.levelno < handler.level or isinstance(handler, logging.NullHandler):
        return False
    failures: list[logging.LogRecord] = []
    with contextlib.ExitStack() as stack:
        if handler.lock is not None:  # a failure of another thread's is not one of this record's
            stack.enter_context(handler.lock)
        stack.callback(vars(handler).pop, "handleError", None)
        vars(handler)["handleError"] = failures.append
        try:
            return handler.handle(record) is not False and not failures
        except Exception:  # noqa: BLE001 - the app's code
            return False
