"""The setting ``log_config``: a file for ``logging.config.dictConfig``, in TOML or JSON.

It is applied in the master and in each loader, so that workers have its handlers too; in a loader before the
app is loaded, whose own set-up of ``logging`` comes on top.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from linepool.errors import SetupError
from linepool.near import nearest
from linepool.operate.log_file import StandardStream
from linepool.operate.log_handler import LineHandler


class LogConfigError(SetupError):
    """The file cannot be read, or does not hold a configuration of logging."""

    is_usage = True


_PARTS = (
    *("version", "formatters", "filters", "handlers", "loggers", "root"),
    *("disable_existing_loggers", "incremental"),
)
_OF_FORMATTERS = ("class", "format", "datefmt", "style", "validate", "defaults")
_OF_LOGGERS = ("level", "handlers", "filters", "propagate")


def apply(path: str) -> None:
    """Set up ``logging`` as a file says; an empty path: leave it as it is.

    ``version`` may be left out. Loggers that exist already stay enabled, unless the file says otherwise.
    A ``StreamHandler`` for standard error or standard output does not block.

    Raises:
        LogConfigError: The text names file, part and reason.
    """
    if not path:
        return
    import logging.config  # noqa: PLC0415 - only for such a file

    config = {"version": 1, "disable_existing_loggers": False, **_read(path)}
    if problem := next(_problems(config), ""):
        raise LogConfigError(f"log_config {path}: {problem}")
    try:
        logging.config.dictConfig(config)
    except Exception as error:  # noqa: BLE001 - a handler's class may be the user's
        reasons = [str(error)]
        cause = error.__cause__
        while cause is not None:
            reasons.append(f"{type(cause).__name__}: {cause}")
            cause = cause.__cause__
        raise LogConfigError(f"log_config {path}: {'; '.join(reasons)}") from None
    root = logging.getLogger()
    for logger in [root, *root.manager.loggerDict.values()]:
        for handler in getattr(logger, "handlers", ()):
            _keep_from_blocking(handler)


def _problems(config: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong in a configuration, and would be ignored by ``logging.config``."""
    yield from _unknown("", config, _PARTS)
    for part in ("formatters", "filters", "handlers", "loggers"):
        entries = config.get(part, {})
        if not isinstance(entries, dict):
            yield f"{part} must be a table, not {type(entries).__name__}"
        yield from (
            f"{part}.{name} must be a table, not {type(entry).__name__}"
            for name, entry in entries.items()
            if not isinstance(entry, dict)
        )
    for name, entry in config.get("formatters", {}).items():
        if "()" not in entry:
            yield from _unknown(f"formatters.{name}.", entry, _OF_FORMATTERS)
    for name, entry in config.get("loggers", {}).items():
        yield from _unknown(f"loggers.{name}.", entry, _OF_LOGGERS)
    if not isinstance(config.get("root", {}), dict):
        yield f"root must be a table, not {type(config['root']).__name__}"
    yield from _unknown("root.", config.get("root", {}), _OF_LOGGERS)
    if "level" in config.get("loggers", {}).get("linepool", {}):
        yield "loggers.linepool.level has no effect; use the setting log_level"


def _unknown(place: str, table: Mapping[str, object], known: Sequence[str]) -> Iterator[str]:
    for key in table:
        if key not in known:
            near = nearest(key, known)
            better = f"did you mean {near}?" if near else f"there are {', '.join(known)}"
            yield f"unknown key {place}{key}; {better}"


class _Unblocked(LineHandler):
    """Writes as another handler formats; drops and counts what the reader of the stream does not take."""

    def __init__(self, stream: StandardStream, handler: logging.StreamHandler[Any]) -> None:
        super().__init__(stream)
        self._handler = handler

    def format(self, record: logging.LogRecord) -> str:
        """Return the lines of a record."""
        return self._handler.format(record)


def _keep_from_blocking(handler: logging.Handler) -> None:
    """Have a handler for standard error or output write without blocking, if it is a plain one.

    It keeps its level, filters and formatter.
    """
    if type(handler) is not logging.StreamHandler:
        return
    with contextlib.suppress(OSError, ValueError, AttributeError):  # it is not a file
        if (descriptor := handler.stream.fileno()) in (1, 2):
            handler.emit = _Unblocked(StandardStream(descriptor), handler).emit  # type: ignore[method-assign]


def _read(path: str) -> dict[str, Any]:
    import tomllib  # noqa: PLC0415 - only for such a file

    kind = path.rpartition(".")[2].lower()
    if kind not in ("toml", "json"):
        raise LogConfigError(f"log_config {path}: the file's name must end in .toml or .json")
    try:
        with open(path, encoding="utf-8-sig") as stream:
            text = stream.read()
        config = tomllib.loads(text) if kind == "toml" else json.loads(text)
    except OSError as error:
        raise LogConfigError(f"log_config: cannot read {path}: {error.strerror}") from None
    except ValueError as error:  # its syntax, or its encoding
        raise LogConfigError(f"log_config: {path} is not valid {kind.upper()}: {error}") from None
    if not isinstance(config, dict):
        raise LogConfigError(f"log_config {path}: must be a table, not {type(config).__name__}")
    return config
