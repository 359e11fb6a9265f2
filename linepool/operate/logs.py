"""Logs: one line an event on stderr, written with one system call, so lines of workers never mix."""

from __future__ import annotations

import contextlib
import logging
import os
import time


class StderrHandler(logging.Handler):
    """Writes each record to descriptor 2; where that fails (a full disk), the record is lost."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        try:
            line = self.format(record)
        except Exception:  # noqa: BLE001 - a bad format string must not stop a request
            line = f"unprintable log record from {record.pathname}:{record.lineno}"
        with contextlib.suppress(OSError):
            os.write(2, line.encode("utf-8", "replace") + b"\n")


class _Formatter(logging.Formatter):
    """Time in UTC to the millisecond, level, message."""

    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"


def set_up(level: str) -> None:
    """Send the log to stderr, unless the app has set up logging itself: then it goes there."""
    root = logging.getLogger()
    if not root.handlers:
        handler = StderrHandler()
        handler.setFormatter(_Formatter("%(asctime)s %(levelname)-7s %(message)s"))
        root.addHandler(handler)
        root.setLevel(logging.INFO)
    logging.getLogger("linepool").setLevel(level.upper())
