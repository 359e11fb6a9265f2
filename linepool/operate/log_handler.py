"""The handler that writes the log's lines, and never blocks."""

from __future__ import annotations

import contextlib
import logging
import os

from linepool.operate.log_file import LogFile, StandardStream
from linepool.operate.log_limit import LogLimit
from linepool.operate.log_lines import Form, TextFormatter

_PATIENCE = 1.0  # seconds


class LineHandler(logging.Handler):
    """Writes each record to standard error or a file; drops it if that would block.

    Args:
        output: Where to.
        form: Of a line.

    Attributes:
        output: Where to.
        form: Of a line.
        limit: Shared by the processes of the server, with the epoch of the file; None: there is none.
    """

    def __init__(
        self,
        output: StandardStream | LogFile | None = None,
        form: Form | None = None,
    ) -> None:
        super().__init__()
        self.form = form or TextFormatter()
        self.output = output or StandardStream()
        self.limit: LogLimit | None = None
        self._dropped = 0
        self._is_cut = False  # only a part of the last line was written

    def format(self, record: logging.LogRecord) -> str:
        """Return the lines of a record."""
        return self.form.format(record)

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        try:
            line = self.format(record)
        except Exception:  # noqa: BLE001 - a bad format string must not stop a request
            place = f"{record.pathname}:{record.lineno}"
            line = self.format(log_event(record.levelno, "malformed log record from %s", place))
        self._write(line)

    def announce(self, line: str) -> None:
        """Write a line that other programs wait for: a slow reader has some time to make room for it."""
        with self.lock or contextlib.nullcontext():
            self._write(line, _PATIENCE)

    def _write(self, line: str, patience: float = 0.0) -> None:
        if self._dropped:  # the reader has had its time
            patience = 0.0
            text = "%d log records dropped: %s"
            dropped = log_event(logging.WARNING, text, self._dropped, self.output.trouble)
            line = f"{self.format(dropped)}\n{line}"
        data = b"\n" * self._is_cut + line.encode("utf-8", "replace") + b"\n"
        left = self.output.write(data, self.limit.epoch if self.limit else 0, patience)
        if left:
            self._dropped += 1
        else:
            self._dropped = 0
        if len(left) < len(data):
            self._is_cut = bool(left)
        if isinstance(self.output, LogFile) and self.output.failure:
            self._tell_failure(self.output)

    def reopen(self) -> str:
        """Open the file anew, in the master; return its path, or "" without a file.

        Raises:
            OSError: It cannot be opened.
        """
        if not isinstance(self.output, LogFile) or self.limit is None:
            return ""
        with self.lock or contextlib.nullcontext():
            self.output.reopen(self.limit.epoch + 1)
            self.limit.epoch += 1
        return self.output.path

    def _tell_failure(self, file: LogFile) -> None:
        """Say once, in the old file, that the new one cannot be opened."""
        why, file.failure = file.failure, ""
        text = "log file cannot be opened anew pid=%d path=%s why=%r"
        self.emit(log_event(logging.WARNING, text, os.getpid(), file.path, why))


def log_event(level: int, text: str, *values: object) -> logging.LogRecord:
    """Return a record of the log's own."""
    return logging.LogRecord("linepool", level, __file__, 0, text, values, None)
