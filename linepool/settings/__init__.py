"""Every setting: its unit, default, limits and syntax. Pure: nothing is read here.

A setting is an option of ``linepool run`` (``--idle-timeout 60``), an environment variable
(``LINEPOOL_IDLE_TIMEOUT``), a key of the file, and a keyword of ``App``. All of them, and
``docs/settings.md``, are generated from the groups of fields in the modules of this package.
The groups have no ``__slots__``: a class cannot have several bases with slots.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import attrs
from attrs import frozen

from linepool.errors import SetupError
from linepool.near import nearest
from linepool.settings import syntax
from linepool.settings.limits import LimitSettings
from linepool.settings.listening import ListeningSettings
from linepool.settings.logs import LogSettings
from linepool.settings.operation import OperationSettings
from linepool.settings.pool import (
    IN_FOREGROUND,
    MAX_WORKERS,
    PoolSettings,
    Workers,
    default_workers,
)
from linepool.settings.process import ProcessSettings

__all__ = [
    "FIELDS",
    "INHERIT",
    "IN_FOREGROUND",
    "MAX_WORKERS",
    "ProcessSettings",
    "Settings",
    "Workers",
    "as_texts",
    "check_names",
    "check_names_of_app",
    "default_workers",
    "from_texts",
    "known_texts",
    "parse_setting",
    "written",
]

INHERIT = syntax.INHERIT

# What other servers call them, where another setting's name is nearer.
_ELSEWHERE = {
    "timeout": "request_timeout",
    "keepalive": "idle_timeout",
    "host": "bind",
    "port": "bind",
    "pidfile": "pid_file",
    "worker_connections": "max_connections",
}
_LARGE = 1000  # connections of a server that keeps some for other addresses


@frozen(kw_only=True)
class Settings(
    ListeningSettings,
    PoolSettings,
    LimitSettings,
    OperationSettings,
    LogSettings,
    ProcessSettings,
):
    """All settings, each with a value."""

    def __attrs_post_init__(self) -> None:
        """Raise SetupError if two settings contradict each other."""
        if self.max_spare < self.min_spare:
            raise SetupError(
                f"max_spare ({self.max_spare}) must not be below min_spare ({self.min_spare})"
            )

    @property
    def has_parker(self) -> bool:
        """Whether connections may leave their worker; in the scheme ``accept`` they cannot."""
        return self.scheme != "accept"

    @property
    def max_state_bytes(self) -> int:
        """How long the state of a connection may be that is passed between processes.

        An unfinished request, a byte of it as up to 6 in JSON; what a worker has read beyond it; the session.
        """
        return 6 * (self.max_line_bytes + self.max_body_bytes) + 524_288

    @property
    def max_unfinished_bytes(self) -> int:
        """The setting max_unfinished_mb in bytes, or one request if that is more."""
        return max(self.max_unfinished_mb * 2**20, self.max_line_bytes + self.max_body_bytes)

    @property
    def address_limit(self) -> int:
        """How many connections one address may have."""
        if self.max_connections_per_address:
            return self.max_connections_per_address
        is_large = self.has_parker and self.max_connections >= _LARGE
        return self.max_connections - (self.max_connections // 10 if is_large else 0)

    @property
    def parker_accepts(self) -> bool:
        """Whether the parker accepts the connections, not the workers."""
        return self.scheme == "dispatch"

    @property
    def blocks_in_accept(self) -> bool:
        """Whether an idle worker waits in accept() itself, where nothing else wakes it."""
        return not self.has_parker and len(self.bind) == 1


FIELDS: Mapping[str, Any] = {
    field.name: field for group in Settings.__bases__ for field in attrs.fields(group)
}


def check_names(names: Iterable[str]) -> None:
    """Raise SetupError for the first unknown setting; the message names a known one that is near."""
    for name in names:
        if name not in FIELDS:
            near = _ELSEWHERE.get(name) or nearest(name.lower(), FIELDS)
            hint = (
                f"did you mean {near!r}?" if near else "'linepool check --settings' lists them all"
            )
            raise SetupError(f"unknown setting {name!r}; {hint}")


def check_names_of_app(names: Iterable[str]) -> None:
    """Raise SetupError for the first setting that is unknown, or that an app cannot have."""
    for name in names:
        check_names([name])
        if FIELDS[name].metadata["is_early"]:
            raise SetupError(
                f"{name} cannot be set by the app, because it counts before the app is loaded; set it on the"
                " command line, in the environment or in a file"
            )


def parse_setting(name: str, value: object, source: str) -> Any:
    """Return the value of one setting.

    Args:
        name: The setting.
        value: A string, or a value of a TOML file or of a keyword argument.
        source: Where it was given, for the message.

    Raises:
        SetupError: The value is wrong; the message says what would be right.
    """
    try:
        return FIELDS[name].metadata["parse"](value)
    except ValueError as error:
        raise SetupError(f"{source}: {name} must be {error}, not {value!r}") from None


def written(name: str, value: object) -> str:
    """Return the value of a setting as a user would write it."""
    if isinstance(value, int) and value == INHERIT:
        return "inherit"
    if FIELDS[name].metadata["unit"] == "octal":
        return f"{value:o}"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return " ".join(value)
    return syntax.exact(value) if isinstance(value, float) else str(value)


def as_texts(settings: Settings) -> dict[str, object]:
    """Return all settings as plain values, for another process."""
    values = {name: getattr(settings, name) for name in FIELDS}
    return {
        name: list(value) if isinstance(value, tuple) else written(name, value)
        for name, value in values.items()
    }


def known_texts(values: Mapping[str, object]) -> dict[str, object]:
    """Return those of the plain values of another version of linepool that are settings of this one."""
    return {name: value for name, value in values.items() if name in FIELDS}


def from_texts(values: Mapping[str, object]) -> Settings:
    """Return settings from what ``as_texts`` returned.

    Raises:
        SetupError: A name or a value is wrong.
    """
    check_names(values)
    return Settings(
        **{name: parse_setting(name, value, "loader") for name, value in values.items()}
    )
