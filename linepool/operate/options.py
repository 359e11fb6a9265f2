"""The options of the settings, which several commands share."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable
from typing import Any

import attrs

from linepool.app import App
from linepool.errors import SetupError
from linepool.operate import before_load, env_file
from linepool.operate.certificates import Certificates
from linepool.operate.config import ConfigError, Configuration, Given, option_name
from linepool.operate.environment import PREFIX
from linepool.operate.log_config import apply as apply_log_config
from linepool.operate.supervision import Supervision
from linepool.settings import FIELDS, Settings, written

_REPEATABLE = ("bind", "tls_cert", "tls_key")
_SHORT = {"bind": ("-b",), "workers": ("-w",)}
_WHERE = (
    "Each setting below is an option, a variable of the environment, in [ ], and a key of the file. The"
    " command line overrides the environment, that the file, and that the app."
)


def add_settings(parser: argparse.ArgumentParser, names: Iterable[str] = FIELDS) -> None:
    """Add an option for the file, and one for each of some settings, in the groups of the settings."""
    files = parser.add_argument_group("configuration", _WHERE)
    files.add_argument("-c", "--config", metavar="FILE", help="TOML file with settings")
    files.add_argument(
        "--env-file",
        metavar="FILE",
        action="append",
        default=[],
        help="file with variables of the environment, for the app and, as LINEPOOL_..., for settings;"
        " repeatable: the last one counts; the environment itself overrides them",
    )
    wanted = set(names)
    for settings in Settings.__bases__:
        kind = settings.__name__.removesuffix("Settings").lower()
        group = parser.add_argument_group(f"{kind} settings")
        for field in attrs.fields(settings):
            if field.name in wanted:
                _add_setting(group, field)


def _add_setting(group: argparse._ArgumentGroup, field: Any) -> None:
    name = field.name
    default = "1:max(4, 4 x CPUs)" if name == "workers" else written(name, field.default)
    text = f"{field.metadata['doc']} (default: {default or 'none'}) [{PREFIX}{name.upper()}]"
    kind: dict[str, Any] = {
        "metavar": _metavar(field),
        "action": "append" if name in _REPEATABLE else "store",
    }
    if name == "reload":
        kind = {"action": "store_const", "const": "on"}
    group.add_argument(
        *_SHORT.get(name, ()),
        option_name(name),
        dest=f"setting_{name}",
        help=text.replace("%", "%%"),
        **kind,
    )


def _metavar(field: Any) -> str:
    """Return what the help shows as the value of a setting: its choices, or its unit."""
    unit: str = field.metadata["unit"]
    if choices := field.metadata["parse"].schema.get("enum"):
        return f"{{{','.join(choices)}}}"
    if unit == "on or off":
        return "{on,off}"
    return unit.upper().replace(" ", "-") or "NAME"


def given_settings(options: argparse.Namespace) -> dict[str, object]:
    """Return the settings that the command line gives, by name, as they were written."""
    return {
        name.removeprefix("setting_"): value
        for name, value in vars(options).items()
        if name.startswith("setting_") and value is not None
    }


def given(options: argparse.Namespace, supervision: Supervision | None = None) -> Given:
    """Return the settings that command line, environment and file give.

    Args:
        options: Of the command line; ``add_settings`` has added them.
        supervision: How this process is supervised; None: the settings are only looked at.

    Raises:
        ConfigError: A name is wrong, or the file.
    """
    try:
        variables = env_file.read(options.env_file)
    except SetupError as error:
        raise ConfigError(str(error)) from None
    settings = given_settings(options)
    return Given.read(settings, os.environ, options.config, supervision, variables)


def prepared(options: argparse.Namespace, certificates: Certificates | None = None) -> Given:
    """Have this process become one that loads an app without serving it; return the given settings.

    ``certificates``: reads those that this process may be unable to read afterwards.

    Raises:
        ConfigError, SetupError: As ``given`` and ``before_load``.
    """
    outside = given(options)
    process = outside.process_settings()
    identity = before_load.enter(process)
    if identity is not None and certificates is not None:
        certificates.read(outside)
    before_load.become(identity, process)
    env_file.add_to(os.environ, outside.variables)
    apply_log_config(outside.value("log_config"))
    return outside


def configured(app: App, options: argparse.Namespace) -> Configuration:
    """Return the effective settings of an app that is not served.

    Raises:
        ConfigError: A name or a value is wrong.
    """
    return given(options).configuration(app)
