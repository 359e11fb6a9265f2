"""The setting ``log_config``: a file for ``logging.config.dictConfig``, in TOML or JSON.

It is applied in the master and in each loader, so that workers have its handlers too; in a loader before the
app is loaded, whose own set-up of ``logging`` comes on top.
"""

from __future__ import annotations

import json
from typing import Any

from linepool.errors import SetupError


class LogConfigError(SetupError):
    """The file cannot be read, or is no such configuration."""

    is_usage = True


def apply(path: str) -> None:
    """Set up ``logging`` as a file says; an empty path: leave it as it is.

    ``version`` may be left out. Loggers that exist already stay enabled, unless the file says otherwise.

    Raises:
        LogConfigError: The text names file, part and reason.
    """
    if not path:
        return
    import logging.config  # noqa: PLC0415 - only for such a file

    config = {"version": 1, "disable_existing_loggers": False, **_read(path)}
    try:
        logging.config.dictConfig(config)
    except Exception as error:  # noqa: BLE001 - a handler's class may be the user's
        reasons = [str(error)]
        cause = error.__cause__
        while cause is not None:
            reasons.append(f"{type(cause).__name__}: {cause}")
            cause = cause.__cause__
        raise LogConfigError(f"log_config {path}: {'; '.join(reasons)}") from None


def _read(path: str) -> dict[str, Any]:
    import tomllib  # noqa: PLC0415 - only for such a file

    kind = path.rpartition(".")[2].lower()
    if kind not in ("toml", "json"):
        raise LogConfigError(f"log_config {path}: the file's name must end in .toml or .json")
    try:
        with open(path, encoding="utf-8") as stream:
            text = stream.read()
        config = tomllib.loads(text) if kind == "toml" else json.loads(text)
    except OSError as error:
        raise LogConfigError(f"log_config: cannot read {path}: {error.strerror}") from None
    except ValueError as error:  # its syntax, or its encoding
        raise LogConfigError(f"log_config: {path} is not valid {kind.upper()}: {error}") from None
    if not isinstance(config, dict):
        raise LogConfigError(f"log_config {path}: must be a table, not {type(config).__name__}")
    return config
