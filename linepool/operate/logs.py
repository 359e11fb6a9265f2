"""Logging: one line per event on stderr, in one system call, so that lines of workers never mix.

Logging never blocks: records that do not fit into a full pipe are dropped and counted.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import time


class StderrHandler(logging.Handler):
    """Writes each record to descriptor 2; drops it if that would block."""

    def __init__(self) -> None:
        super().__init__()
        self._dropped = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        try:
            line = self.format(record)
        except Exception:  # noqa: BLE001 - a bad format string must not stop a request
            line = f"malformed log record from {record.pathname}:{record.lineno}"
        if self._dropped:
            line = f"{self._dropped} log records dropped: stderr is not being read\n{line}"
        if _write(line.encode("utf-8", "replace") + b"\n"):
            self._dropped = 0
        else:
            self._dropped += 1


def _write(data: bytes) -> bool:
    """Write to descriptor 2 without blocking; return whether all of it was written.

    A pipe that is writable has room for PIPE_BUF bytes (poll(2), pipe(7)).
    """
    poller = select.poll()
    poller.register(2, select.POLLOUT)
    with contextlib.suppress(OSError):
        while data and poller.poll(0):
            data = data[os.write(2, data[: select.PIPE_BUF]) :]
    return not data


class _Formatter(logging.Formatter):
    """Time in UTC to the millisecond, level, message."""

    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"


def set_up(level: str) -> None:
    """Log to stderr, unless the app has configured logging itself."""
    root = logging.getLogger()
    if not root.handlers:
        handler = StderrHandler()
        handler.setFormatter(_Formatter("%(asctime)s %(levelname)-7s %(message)s"))
        root.addHandler(handler)
        root.setLevel(logging.INFO)
    logging.getLogger("linepool").setLevel(level.upper())
