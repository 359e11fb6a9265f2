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
from attrs import evolve, frozen

from linepool.errors import SetupError
from linepool.near import nearest
from linepool.settings import syntax
from linepool.settings.clients import ClientSettings
from linepool.settings.limits import LimitSettings
from linepool.settings.listeners import ListenerTable, keys_of, parse_tables
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
from linepool.settings.tls import TlsSettings

__all__ = [
    "FIELDS",
    "INHERIT",
    "IN_FOREGROUND",
    "MAX_WORKERS",
    "PER_LISTENER",
    "ProcessSettings",
    "Settings",
    "Workers",
    "as_texts",
    "check_names",
    "check_names_of_app",
    "default_workers",
    "exact_text",
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
    "certfile": "tls_cert",
    "keyfile": "tls_key",
    "ca_certs": "tls_ca",
    "cert_reqs": "tls_verify",
    "ssl_certfile": "tls_cert",
    "ssl_keyfile": "tls_key",
    "ssl_ca_certs": "tls_ca",
    "ssl_cert_reqs": "tls_verify",
    "ssl_ciphers": "tls_ciphers",
    "tls_cert_file": "tls_cert",
    "tls_key_file": "tls_key",
    "tls_ca_cert_file": "tls_ca",
    "tls_auth_clients": "tls_verify",
    "handshake_timeout": "tls_handshake_timeout",
}
_URL = "url"  # the unit of settings that may have a password in them
_LARGE = 1000  # connections of a server that keeps some for other addresses


@frozen(kw_only=True)
class Settings(
    ListeningSettings,
    ClientSettings,
    TlsSettings,
    PoolSettings,
    LimitSettings,
    OperationSettings,
    LogSettings,
    ProcessSettings,
):
    """All settings, each with a value.

    Attributes:
        listeners: Listeners with an app or settings of their own. If there are any, ``bind`` has the
            addresses of all of them, in their order.
    """

    listeners: tuple[ListenerTable, ...] = ()

    def __attrs_post_init__(self) -> None:
        """Raise SetupError if two settings contradict each other."""
        for table in self.listeners:
            try:
                self._of(table)
            except SetupError as error:
                raise SetupError(f"listener {table.bind[0]}: {error}") from None
        if self.max_spare < self.min_spare:
            raise SetupError(
                f"max_spare ({self.max_spare}) must not be below min_spare ({self.min_spare})"
            )
        self.check_tls()

    @property
    def keys(self) -> list[str]:
        """The keys of the listeners, in the order of ``bind``; see ``Listener.key``."""
        return keys_of(self.bind)

    def table_of(self, key: str) -> ListenerTable | None:
        """Return the table of a listener; None: it has none."""
        tables = [table for table in self.listeners for _ in table.bind]
        return dict(zip(self.keys, tables, strict=False)).get(key)

    def of_listener(self, key: str) -> Settings:
        """Return what holds for the connections of a listener."""
        table = self.table_of(key)
        return self._of(table) if table else self

    def _of(self, table: ListenerTable) -> Settings:
        return evolve(self, bind=table.bind, listeners=(), **dict(table.options))

    @property
    def each(self) -> list[Settings]:
        """What holds for connections: of the server, and of each listener with settings of its own."""
        return [self, *map(self._of, self.listeners)]

    @property
    def has_parker(self) -> bool:
        """Whether connections may leave their worker; in the scheme ``accept`` they cannot."""
        return self.scheme != "accept"

    @property
    def max_state_bytes(self) -> int:
        """How long the state of a connection may be that is passed between processes.

        An unfinished request, a byte of it as up to 6 in JSON; what a worker has read beyond it; the session.
        """
        return 6 * self._max_request_bytes + 524_288

    @property
    def max_unfinished_bytes(self) -> int:
        """The setting max_unfinished_mb in bytes, or one request if that is more."""
        return max(self.max_unfinished_mb * 2**20, self._max_request_bytes)

    @property
    def _max_request_bytes(self) -> int:
        return max(one.max_line_bytes + one.max_body_bytes for one in self.each)

    @property
    def address_limit(self) -> int:
        """How many connections one address may have."""
        if self.max_connections_per_address:
            return self.max_connections_per_address
        is_large = self.has_parker and self.max_connections >= _LARGE
        return self.max_connections - (self.max_connections // 10 if is_large else 0)

    @property
    def first_timeout(self) -> float:
        """How long a new client may be silent."""
        return self.tls_handshake_timeout if self.begins_with_tls else self.idle_timeout

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


PER_LISTENER = tuple(name for name, field in FIELDS.items() if field.metadata["per_listener"])
"""The settings that a table ``[[listener]]`` may have."""


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
        if isinstance(value, str) and FIELDS[name].metadata["unit"] == _URL:
            value = syntax.without_password(value)
        raise SetupError(f"{source}: {name} must be {error}, not {value!r}") from None


def written(name: str, value: object) -> str:
    """Return the value of a setting as a user would write it, without a password."""
    text = exact_text(name, value)
    return syntax.without_password(text) if FIELDS[name].metadata["unit"] == _URL else text


def exact_text(name: str, value: object) -> str:
    """Return the value of a setting as a user would write it, also with a password."""
    if isinstance(value, int) and value == INHERIT:
        return "inherit"
    if FIELDS[name].metadata["unit"] == "octal":
        return f"{value:o}"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    return syntax.exact(value) if isinstance(value, float) else str(value)


def as_texts(settings: Settings) -> dict[str, object]:
    """Return all settings as plain values, for another process."""
    texts: dict[str, object] = {name: _as_text(name, getattr(settings, name)) for name in FIELDS}
    if settings.listeners:
        texts["listeners"] = [
            {
                "bind": list(table.bind),
                "app": table.app,
                "name": table.name,
                **{name: _as_text(name, value) for name, value in table.options},
            }
            for table in settings.listeners
        ]
    return texts


def _as_text(name: str, value: object) -> object:
    return list(value) if isinstance(value, tuple) else exact_text(name, value)


def known_texts(values: Mapping[str, object]) -> dict[str, object]:
    """Return those of the plain values of another version of linepool that are settings of this one."""
    return {name: value for name, value in values.items() if name in (*FIELDS, "listeners")}


def from_texts(values: Mapping[str, object]) -> Settings:
    """Return settings from what ``as_texts`` returned.

    Raises:
        SetupError: A name or a value is wrong.
    """
    values = dict(values)
    tables = values.pop("listeners", ())
    check_names(values)
    return Settings(
        **{name: parse_setting(name, value, "loader") for name, value in values.items()},
        listeners=tables_of(tables, "loader"),
    )


def tables_of(value: object, source: str) -> tuple[ListenerTable, ...]:
    """Return the tables ``[[listener]]`` of a file.

    Raises:
        SetupError: A key or a value is wrong.
    """
    return parse_tables(value, source, FIELDS, parse_setting)
