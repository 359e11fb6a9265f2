"""Configuration: command line over environment over file over app over default."""

from __future__ import annotations

import contextlib
import math
import os
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import frozen

from linepool.app import App
from linepool.errors import SetupError
from linepool.kernel.cpus import available_cpus
from linepool.operate.environment import misspelt_in, settings_in
from linepool.operate.supervision import Supervision
from linepool.settings import FIELDS, Settings, check_names, default_workers, parse_setting

COMMAND_LINE = "command line"
_LISTEN_FDS = "LISTEN_FDS"


class ConfigError(SetupError):
    """A setting is wrong, in any source."""

    is_usage = True


@frozen
class Configuration:
    """The effective settings.

    Attributes:
        sources: The source of each setting that is not a default.
        warnings: A line for each variable of the environment that has no effect and should have one.
    """

    settings: Settings
    sources: Mapping[str, str]
    warnings: Sequence[str]


def configure(
    app: App,
    options: Mapping[str, object],
    environment: Mapping[str, str],
    file: str | None = None,
    supervision: Supervision | None = None,
) -> Configuration:
    """Return the effective settings.

    Args:
        app: Its own settings have the lowest precedence.
        options: From the command line, by setting.
        environment: ``LINEPOOL_IDLE_TIMEOUT=60`` and the like; other variables and empty ones are
            ignored.
        file: A TOML file; None: ``linepool.toml``, or ``[tool.linepool]`` of ``pyproject.toml``, in
            the working directory, if they exist.
        supervision: How the process is supervised; its sockets give ``bind`` a value, and a name there,
            ``systemd:NAME``, becomes their descriptors. None: the settings are only looked at.

    Raises:
        ConfigError: A name or a value is wrong; the message says where and what would be right.
    """
    try:
        return _configure(app, options, environment, file, supervision)
    except SetupError as error:
        raise ConfigError(str(error)) from None


def _configure(
    app: App,
    options: Mapping[str, object],
    environment: Mapping[str, str],
    file: str | None,
    supervision: Supervision | None,
) -> Configuration:
    values: dict[str, Any] = {"workers": default_workers(math.ceil(available_cpus()))}
    sources: dict[str, str] = {}
    passed = supervision.default_bind if supervision else ()
    layers: list[tuple[str, Mapping[str, object]]] = [
        ("App(...)", app.settings),
        _file_layer(file),
        (_LISTEN_FDS, {"bind": passed} if passed else {}),
        ("environment", settings_in(environment)),
        (COMMAND_LINE, options),
    ]
    for source, layer in layers:
        try:
            check_names(layer)
        except SetupError as error:
            raise SetupError(f"{source}: {error}") from None
        for name, value in layer.items():
            values[name] = parse_setting(name, value, source)
            sources[name] = source
    warnings = misspelt_in(environment)
    if supervision:
        values["bind"] = supervision.resolved(values.get("bind", FIELDS["bind"].default))
        warnings += supervision.warnings
        if unserved := supervision.unserved(values["bind"]):
            which = " ".join(one.shown for one in unserved)
            warnings.append(
                f"sockets of LISTEN_FDS are not served, for bind is given ({sources['bind']}): {which}"
            )
    return Configuration(Settings(**values), sources, warnings)


def early(
    name: str, options: Mapping[str, object], environment: Mapping[str, str], file: str | None
) -> Any:
    """Return a setting that counts before the app is loaded, so the app cannot set it.

    Args:
        name: The setting.
        options: As for ``configure``.
        environment: As for ``configure``.
        file: As for ``configure``.

    Raises:
        ConfigError: Its value is wrong, or the file cannot be read.
    """
    try:
        file_name, in_file = _file_layer(file)
        for source, layer in (
            (COMMAND_LINE, options),
            ("environment", settings_in(environment)),
            (file_name, in_file),
        ):
            if name in layer:
                return parse_setting(name, layer[name], source)
    except SetupError as error:
        raise ConfigError(str(error)) from None
    return FIELDS[name].default


def control_path(environment: Mapping[str, str]) -> str | None:
    """Return the path of the control socket that environment or file give; None: they give none."""
    given: object = settings_in(environment).get("control")
    if given is None:
        with contextlib.suppress(
            SetupError
        ):  # another setting may be wrong, which is reported elsewhere
            given = _file_layer(None)[1].get("control")
    return given if isinstance(given, str) and given not in ("auto", "off") else None


def option_name(setting: str) -> str:
    """Return the option of ``linepool run`` for a setting."""
    return "--" + setting.replace("_", "-")


def _file_layer(file: str | None) -> tuple[str, Mapping[str, object]]:
    if file is not None:
        return file, _read(file)
    for found in ("linepool.toml", "pyproject.toml"):
        if os.path.exists(found):
            return found, _read(found)
    return "file", {}


def _read(file: str) -> dict[str, Any]:
    """Return the settings in a TOML file; keys may use dashes, as options do: idle-timeout."""
    try:
        with open(file, "rb") as stream:
            table = tomllib.load(stream)
    except OSError as error:
        raise SetupError(f"cannot read {file}: {error.strerror}") from None
    except ValueError as error:  # not TOML, or not UTF-8
        raise SetupError(f"{file} is not valid TOML: {error}") from None
    if os.path.basename(file) == "pyproject.toml":
        for key in ("tool", "linepool"):
            table = table.get(key, {})
            if not isinstance(table, dict):
                raise SetupError(f"{file}: {key} must be a table, not {table!r}")
    settings: dict[str, Any] = {}
    for key, value in table.items():
        name = key.replace("-", "_")
        if name in settings:
            raise SetupError(f"{file}: {name} is given twice")
        if name == "unix_mode" and isinstance(value, int):
            # TOML cannot tell 440 from 0o670.
            raise SetupError(f"{file}: unix_mode must be a string of octal digits, such as '660'")
        settings[name] = value
    return settings
