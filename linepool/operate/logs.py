"""Logging: one line per event on standard error or in a file, so that lines of workers never mix.

The server's own events are records of the logger ``linepool``. Whatever the app does with ``logging``, each
of them is written: by the app's handlers where one takes it, otherwise by the handler here. Each kind of
event has a limit, see ``log_limit``. Logging never blocks: what does not fit into a full pipe is dropped
and counted.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import selectors
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

from linepool.errors import SetupError
from linepool.faults import fault_of
from linepool.kernel import features
from linepool.kernel.privileges import owner_of
from linepool.kernel.standard import fill_standard_descriptors
from linepool.operate.log_config import apply as apply_log_config
from linepool.operate.log_file import LogFile, StandardStream
from linepool.operate.log_handler import LineHandler, log_event
from linepool.operate.log_limit import LogLimit
from linepool.operate.log_lines import TextFormatter, attach, event_of, form_for, shown
from linepool.operate.log_relay import Relay
from linepool.operate.terminal import error_lines
from linepool.settings import Settings

_LOOK_EVERY = 1.0  # seconds between two looks for lines that were left out, without a timer
_TEXT = TextFormatter()
_WARNINGS = ("warnings", "_py_warnings")
"""The module that has ``showwarning``; from Python 3.14 on the second one."""

_first_format = "text"


class EventLogger(logging.Logger):
    """The logger of the server's own events; what it is in a process that runs a server.

    ``logging.config`` and ``logging.disable`` do not silence it, and only the setting ``log_level`` says
    from which level on it writes.

    Attributes:
        threshold: That level.
        log_format: The setting.
        last_resort: Takes each record that no handler of the app has taken.
        standard: Writes to standard error, whatever the log's file.
    """

    threshold: int
    log_format: str
    last_resort: LineHandler
    standard: LineHandler

    @property
    def limit(self) -> LogLimit:
        """Counts the lines of each kind, for all processes of the server."""
        assert self.last_resort.limit is not None
        return self.last_resort.limit

    @limit.setter
    def limit(self, limit: LogLimit) -> None:
        self.last_resort.limit = limit

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 - the name is that of logging
        """Whether events of a level are written."""
        return level >= self.threshold

    def makeRecord(self, *args: Any, **kwargs: Any) -> logging.LogRecord:  # noqa: N802 - as above
        """Return a record, even if the app's own factory of records fails."""
        try:
            return super().makeRecord(*args, **kwargs)
        except Exception:  # noqa: BLE001 - the app's code
            return logging.LogRecord(*args[:7])

    def handle(self, record: logging.LogRecord) -> None:
        """Write an event, unless there were too many of its kind."""
        now = time.monotonic()
        self.report_left_out(now)
        if self.limit.admits(record.levelno, _kind(record), now):
            self._write(record)

    def configure(self, settings: Settings) -> None:
        """Follow other settings; if their ``log_config`` is wrong, its handlers stay as they are."""
        try:
            apply_log_config(settings.log_config)
        except SetupError as error:
            self.warning("log handlers stay as they were pid=%d why=%r", os.getpid(), str(error))
        self.threshold = logging.getLevelNamesMapping()[settings.log_level.upper()]
        self.limit.configure(settings.log_limit)
        self.log_format = settings.log_format
        self._use_forms(settings)

    def announce(self, text: str, event: str, facts: Mapping[str, Any]) -> None:
        """Write a line that other programs wait for, to standard error; to a log file too.

        Args:
            text: The line.
            event: Its name, in the JSON form.
            facts: Likewise.
        """
        self.standard.announce(self.standard.form.announcement(text, event, facts))
        is_file = self.standard is not self.last_resort
        if (is_file or any(self._handlers())) and self.threshold <= logging.INFO:
            self._write(log_event(logging.INFO, "%s", text))

    def use(self, last_resort: LineHandler, settings: Settings) -> None:
        """Have a handler be the last resort."""
        self.last_resort = last_resort
        is_file = isinstance(last_resort.output, LogFile)
        self.standard = LineHandler() if is_file else last_resort
        self._use_forms(settings)

    def _use_forms(self, settings: Settings) -> None:
        self.standard.form = form_for(settings.log_format, 2)
        if self.standard is not self.last_resort:
            self.last_resort.form = form_for(settings.log_format, None)

    def report_left_out(self, now: float, *, all_kinds: bool = False) -> None:
        """Say how many lines were left out; ``all_kinds``: even if that is not due yet."""
        for left in self.limit.ended(now, all_kinds=all_kinds):
            text = "lines left out count=%d within_s=%.0f kind=%r"
            self._write(log_event(left.level, text, left.count, left.seconds, left.text))

    def _write(self, record: logging.LogRecord) -> None:
        """Give a record to the app's handlers; if none takes it, to the last resort."""
        if isinstance(record.args, tuple):
            record.args = tuple(shown(a) if isinstance(a, str) else a for a in record.args)
        attach(record)
        relay = Relay(list(self._handlers()))
        with contextlib.suppress(Exception):  # the app's code, or an exception that cannot be shown
            if record.exc_info:  # else a formatter of the app's would show a client's bytes raw
                record.exc_text = _TEXT.formatException(record.exc_info)
            if not self.filter(record):
                return  # the app has a filter for just these events
            logging.Logger.callHandlers(relay, record)  # type: ignore[arg-type]
        if not relay.is_taken:
            self.last_resort.handle(record)

    def _handlers(self) -> Iterator[logging.Handler]:
        """Yield the app's handlers for these events: its own, and those of the root logger."""
        logger: logging.Logger | None = self
        while logger is not None:
            yield from logger.handlers
            logger = logger.parent if logger.propagate else None


def _kind(record: logging.LogRecord) -> str:
    """Return what the records have in common of which only some are written each minute."""
    kind = event_of(str(record.msg))
    if not kind and record.args and isinstance(record.args, tuple):  # such as "%s failed"
        kind = str(record.args[0])
    command = getattr(record, "command", "")
    error = record.exc_info[1] if record.exc_info else None
    return " ".join(filter(None, [kind, command, fault_of(error) if error else ""]))


def set_up(settings: Settings, file: LogFile | None = None) -> None:
    """Log each of the server's events, and what the app logs unless it sets that up itself.

    Args:
        settings: All of them.
        file: The log file, if it is open already.

    Raises:
        SetupError: The log file cannot be opened.
    """
    fill_standard_descriptors()  # which the app may have closed when it was loaded
    output: LogFile | StandardStream = file or StandardStream()
    if settings.log_file and file is None:
        output = LogFile(settings.log_file, owner_of(settings.user, settings.group))
    last_resort = LineHandler(output)
    last_resort.limit = LogLimit(settings.log_limit)
    logging.lastResort = last_resort
    if not logging.getLogger().handlers:
        logging.getLogger().setLevel(logging.INFO)
    logger = logging.getLogger("linepool")
    logger.__class__ = (
        EventLogger  # in place: the modules of linepool, and the app, have this object
    )
    assert isinstance(logger, EventLogger)
    logger.threshold = logging.getLevelNamesMapping()[settings.log_level.upper()]
    logger.log_format = settings.log_format
    logger.use(last_resort, settings)
    _log_what_is_printed(logger)


def begin(log_format: str) -> None:
    """Have failures of the start be shown in a form, even if that is before the log is set up."""
    global _first_format  # noqa: PLW0603 - one per process
    _first_format = log_format


def show_failure(message: str) -> None:
    """Show on standard error why a command fails, or a server does not start."""
    logger = logging.getLogger("linepool")
    log_format = logger.log_format if isinstance(logger, EventLogger) else _first_format
    if log_format == "text":
        line = error_lines(message)
    else:
        line = form_for(log_format, 2).announcement(message, "not started", {}, logging.ERROR)
    LineHandler().announce(line)  # the server ends, even if nothing reads why


def reopen() -> str:
    """Open the log file anew, in the master; the other processes follow. Return its path; "" without a file.

    Raises:
        OSError: It cannot be opened; all processes go on in the old one.
    """
    logger = logging.getLogger("linepool")
    return logger.last_resort.reopen() if isinstance(logger, EventLogger) else ""


def log_epoch() -> int:
    """Return how often the master has opened the log's files anew."""
    logger = logging.getLogger("linepool")
    return logger.limit.epoch if isinstance(logger, EventLogger) else 0


def next_log_epoch() -> None:
    """Have the other processes open their files anew, unless there is a log file: ``reopen`` does so then."""
    logger = logging.getLogger("linepool")
    if isinstance(logger, EventLogger) and not isinstance(logger.last_resort.output, LogFile):
        logger.limit.epoch += 1


def configure(settings: Settings) -> None:
    """Follow other settings from now on, with the counts as they are; in the master and the parker."""
    logger = logging.getLogger("linepool")
    if isinstance(logger, EventLogger):
        logger.configure(settings)


def limit_handed_over() -> tuple[dict[str, Any], list[int]] | None:
    """Return the limit of this process's log, to be shared with another one; None: it has none."""
    logger = logging.getLogger("linepool")
    return logger.limit.handed_over() if isinstance(logger, EventLogger) else None


def file_handed_over() -> tuple[dict[str, Any], list[int]] | None:
    """Return the log file, to be handed over to another program; None without a file."""
    logger = logging.getLogger("linepool")
    output = logger.last_resort.output if isinstance(logger, EventLogger) else None
    return output.handed_over() if isinstance(output, LogFile) else None


def share_limit(facts: dict[str, Any], descriptors: list[int]) -> None:
    """Share the limit of another process's log from now on."""
    logger = logging.getLogger("linepool")
    if isinstance(logger, EventLogger):
        logger.limit = LogLimit.taken_over(facts, descriptors)


class LogReporter:
    """Says how many lines were left out even if nothing else is logged; what the master's loop watches."""

    due_at = math.inf  # the timer wakes the master, if there is one

    def __init__(self) -> None:
        self._log = logging.getLogger("linepool")

    def open(self, selector: selectors.BaseSelector) -> None:
        """Register the timer that any process of the server sets."""
        if isinstance(self._log, EventLogger) and self._log.limit.timer.fileno() >= 0:
            selector.register(self._log.limit.timer, selectors.EVENT_READ, self._on_timer)

    def turn(self) -> None:
        """Say what is to be said by now."""
        self._report()
        if not features.TIMER:
            self.due_at = time.monotonic() + _LOOK_EVERY

    def close(self) -> None:
        """Say it at the end of the server."""
        self._report(all_kinds=True)

    def abandon(self) -> None:
        """Keep the descriptor: a new worker sets the timer too."""

    def _on_timer(self) -> None:
        if isinstance(self._log, EventLogger):
            self._log.limit.on_timer()
        self._report()

    def _report(self, *, all_kinds: bool = False) -> None:
        if isinstance(self._log, EventLogger):
            self._log.report_left_out(time.monotonic(), all_kinds=all_kinds)


def _log_what_is_printed(log: logging.Logger) -> None:
    """Log warnings and exceptions that the interpreter would print, where the app has not seen to them."""

    def on_warning(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: object = None,
        line: object = None,
    ) -> None:
        place = f"{filename}:{lineno}"
        text = f"{category.__name__}: {message}"
        log.warning("warning issued at=%s %s", place, text, extra={"command": place})

    def on_thread_error(error: threading.ExceptHookArgs) -> None:
        if not issubclass(error.exc_type, SystemExit):
            name = error.thread.name if error.thread else "-"
            log.error("thread failed thread_name=%s", name, exc_info=error.exc_value)

    def on_unraisable(error: sys.UnraisableHookArgs) -> None:
        log.error("exception ignored in=%s", type(error.object).__name__, exc_info=error.exc_value)

    if warnings.showwarning.__module__ in _WARNINGS:
        warnings.showwarning = on_warning
    if threading.excepthook is threading.__excepthook__:
        threading.excepthook = on_thread_error
    if sys.unraisablehook is sys.__unraisablehook__:
        sys.unraisablehook = on_unraisable
