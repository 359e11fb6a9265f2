"""Configuration: command line over environment over file over app over default."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import attrs
from attrs import frozen

from linepool.app import App
from linepool.apps import Apps, as_apps
from linepool.errors import SetupError
from linepool.kernel import features
from linepool.kernel.cpus import available_cpus
from linepool.operate.env_file import Variables
from linepool.operate.environment import misspelt_in, settings_in
from linepool.operate.planned import planned, resolved, shared_settings, source_of
from linepool.operate.supervision import Supervision
from linepool.settings import (
    FIELDS,
    IN_FOREGROUND,
    ProcessSettings,
    Settings,
    check_names,
    check_names_of_app,
    default_workers,
    parse_setting,
    tables_of,
)
from linepool.settings.listeners import ListenerTable, refuse_doubles

COMMAND_LINE = "command line"
ENVIRONMENT = "environment"
_APP = "App(...)"
_LISTEN_FDS = "LISTEN_FDS"
_FOUND = ("linepool.toml", "pyproject.toml")


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
    app: App | Apps,
    options: Mapping[str, object],
    environment: Mapping[str, str],
    file: str | None = None,
    supervision: Supervision | None = None,
) -> Configuration:
    """Return the effective settings of an app; for the other arguments, see ``Given.read``.

    Raises:
        ConfigError: A name or a value is wrong; the message says where and what would be right.
    """
    return Given.read(options, environment, file, supervision).configuration(app)


@frozen
class Given:
    """The settings that are given outside of the app.

    Attributes:
        layers: The sources with their settings, the lowest precedence first.
        supervision: How the process is supervised; None: the settings are only looked at.
        app_table: The table ``[app]`` of the file; None: there is none.
        app_source: Where it is, for messages.
        tables: The tables ``[[listener]]`` of the file.
        targets: What the file has under ``target``: served if the command line names no target.
        variables: Those of files, for the environment.
        warnings: As in ``Configuration``.
    """

    layers: Sequence[tuple[str, Mapping[str, object]]]
    supervision: Supervision | None
    app_table: Mapping[str, Any] | None
    app_source: str
    tables: Sequence[ListenerTable]
    targets: Sequence[str]
    variables: Variables
    warnings: Sequence[str]

    @classmethod
    def read(
        cls,
        options: Mapping[str, object],
        environment: Mapping[str, str],
        file: str | None = None,
        supervision: Supervision | None = None,
        env_files: Variables = (),
    ) -> Given:
        """Read file and environment.

        Args:
            options: From the command line, by setting.
            environment: ``LINEPOOL_IDLE_TIMEOUT=60`` and the like; other variables and empty ones are
                ignored.
            file: A TOML file; None: ``linepool.toml``, or ``[tool.linepool]`` of ``pyproject.toml``, in
                the working directory, if they exist.
            supervision: How the process is supervised; its sockets give ``bind`` a value, and a name
                there, ``systemd:NAME``, becomes their descriptors. None: the settings are only looked at.
            env_files: Variables of files, which those of the environment override.

        Raises:
            ConfigError: The file or a name is wrong.
        """
        passed = supervision.default_bind if supervision else ()
        with _as_config_errors():
            source, in_file = _file_layer(file)
            app_table = in_file.pop("app", None)
            if app_table is not None and not isinstance(app_table, dict):
                raise SetupError(f"{source}: app must be a table, not {app_table!r}")
            tables = tables_of(in_file.pop("listener", ()), source)
            targets = _targets(in_file.pop("target", ()), source)
            app_source = "[app]" if app_table is None else f"{source}: [app]"
            layers = [
                (source, in_file),
                (_LISTEN_FDS, {"bind": passed} if passed else {}),
                *((name, settings_in(variables)) for name, variables in env_files),
                (ENVIRONMENT, settings_in(environment)),
                (COMMAND_LINE, options),
            ]
            for name, layer in layers:
                _check(name, layer, check_names)
        warnings = [
            f"{name}: {warning}"
            for name, variables in (*env_files, (ENVIRONMENT, environment))
            for warning in misspelt_in(variables)
        ]
        return cls(layers, supervision, app_table, app_source, tables, targets, env_files, warnings)

    def process_settings(self) -> ProcessSettings:
        """Return the settings that count before the app is loaded.

        Raises:
            ConfigError: A value is wrong.
        """
        with _as_config_errors():
            names = attrs.fields_dict(ProcessSettings)
            values, _ = _merged(self.layers)
            return ProcessSettings(
                **{name: value for name, value in values.items() if name in names}
            )

    def value(self, name: str, apps: Sequence[App] = ()) -> Any:
        """Return the value of a setting, as far as it does not come from apps that are not known yet.

        Raises:
            ConfigError: The value is wrong.
        """
        with _as_config_errors():
            in_apps = [{name: app.settings[name]} for app in apps if name in app.settings]
            values, _ = _merged([*((_APP, one) for one in in_apps), *self.layers])
            return values.get(name, FIELDS[name].default)

    def fixed(self) -> dict[str, Any]:
        """Return the settings that root does not take from an app: files, and what the processes are.

        Raises:
            ConfigError: A value is wrong.
        """
        with _as_config_errors():
            values, _ = _merged(self.layers)
            return {
                name: values.get(name, field.default)
                for name, field in FIELDS.items()
                if field.metadata["unit"] == "path" or field.metadata["is_early"]
            }

    def fill(self, app: App | Apps) -> None:
        """Give the app the table ``[app]``; see ``Apps.configure``.

        Raises:
            SetupError: A key is unknown or missing, or a value is wrong.
        """
        app.configure(self.app_table, self.app_source)

    def configuration(
        self, app: App | Apps, tables: Sequence[ListenerTable] | None = None
    ) -> Configuration:
        """Return the effective settings of one app or several; their own have the lowest precedence.

        Args:
            app: What is served.
            tables: Those of the file, with the names of their apps; None: as they are.

        Raises:
            ConfigError: A value is wrong, or an app has a setting that it cannot have.
        """
        apps, tables = as_apps(app), self.tables if tables is None else tables
        with _as_config_errors():
            for one in apps:
                _check(source_of(apps, one.name), one.settings, check_names_of_app)
            layers = self.layers
            if tables or apps.addresses or len(apps) > 1:
                layers = [layer for layer in layers if layer[0] != _LISTEN_FDS]
            values, sources = _merged([(_APP, shared_settings(apps)), *layers])
            plan = self._plan(apps, tables, layers)
            if values.get("user"):
                _refuse_paths(sources)
            if values.get("reload"):
                values = {"reload_batch": 1.0, "log_limit": 0, **values}
            if values.get("workers") == IN_FOREGROUND:
                values = {"log_limit": 0, **values}
            if missing := features.why_accept_only():
                _check_portable(values, missing)
            values.setdefault("workers", default_workers(math.ceil(available_cpus())))
            warnings = [*self.warnings]
            if plan:
                values["bind"] = tuple(address for table in plan for address in table.bind)
                sources["bind"] = sources.get("bind", "listeners")
            if self.supervision:
                bind = values.get("bind", FIELDS["bind"].default)
                values["bind"] = self.supervision.resolved(bind)
                plan = resolved(plan, self.supervision.resolved)
                warnings += self.supervision.warnings
                if unserved := self.supervision.unserved(values["bind"]):
                    which = " ".join(one.shown for one in unserved)
                    by = sources["bind"]
                    warnings.append(
                        f"sockets of LISTEN_FDS are not served, for bind is given ({by}): {which}"
                    )
            return Configuration(Settings(**values, listeners=tuple(plan)), sources, warnings)

    def _plan(
        self,
        apps: Apps,
        tables: Sequence[ListenerTable],
        layers: Sequence[tuple[str, Mapping[str, object]]],
    ) -> Sequence[ListenerTable]:
        """Return the listeners; none, if there is one app whose addresses ``bind`` says."""
        if not (tables or apps.addresses or len(apps) > 1):
            return ()
        given, sources = _merged(layers)
        plan = planned(apps, tables, given, sources.get("bind", ""))
        refuse_doubles(plan)
        return plan


def _check(
    source: str, layer: Mapping[str, object], check: Callable[[Iterable[str]], None]
) -> None:
    try:
        check(layer)
    except SetupError as error:
        raise SetupError(f"{source}: {error}") from None


def _targets(value: object, source: str) -> list[str]:
    """Return the targets of a file: one, or a list."""
    targets = [value] if isinstance(value, str) else value
    if isinstance(targets, (list, tuple)) and all(isinstance(one, str) and one for one in targets):
        return [*targets]
    raise SetupError(
        f"{source}: target must be a TARGET such as 'shop.stock:app', or a list, not {value!r}"
    )


def _merged(
    layers: Iterable[tuple[str, Mapping[str, object]]],
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the value of each setting that is given, and the source of it."""
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for source, layer in layers:
        for name, value in layer.items():
            values[name] = parse_setting(name, value, source)
            sources[name] = source
    return values, sources


def _check_portable(values: dict[str, Any], missing: str) -> None:
    """Choose the scheme that needs no system calls of Linux; raise SetupError for what cannot be."""
    scheme = values.setdefault("scheme", "accept")
    if scheme != "accept":
        raise SetupError(
            f"scheme {scheme} needs Linux (this system has no {missing}); use scheme accept"
        )


def _refuse_paths(sources: Mapping[str, str]) -> None:
    """Raise SetupError for a file of the master's, which may be root, that the app's code names."""
    for name, source in sources.items():
        if source == _APP and FIELDS[name].metadata["unit"] == "path":
            raise SetupError(
                f"{_APP}: {name} cannot be set by the app if user is given, because root opens the file;"
                " set it on the command line, in the environment or in a file"
            )


@contextlib.contextmanager
def _as_config_errors() -> Iterator[None]:
    try:
        yield
    except SetupError as error:
        raise ConfigError(str(error)) from None


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


def files_of(file: str | None) -> Sequence[str]:
    """Return the files in which settings may be, also those that do not exist; see ``Given.read``."""
    found = _FOUND if file is None else (file,)
    try:
        return [os.path.abspath(one) for one in found]
    except OSError:  # the working directory has been removed
        return [one for one in found if os.path.isabs(one)]


def _file_layer(file: str | None) -> tuple[str, dict[str, Any]]:
    if file is not None:
        return file, _read(file)
    for found in _FOUND:
        if os.path.exists(found):
            return found, _read(found)
    return "file", {}


def _advice(file: str) -> str:
    is_python = file.endswith(".py")
    return "; settings are written in TOML, as in linepool.toml, not in Python" if is_python else ""


def _read(file: str) -> dict[str, Any]:
    """Return the settings in a TOML file; keys may use dashes, as options do: idle-timeout."""
    import tomllib  # noqa: PLC0415 - only if there is a file

    try:
        with open(file, encoding="utf-8-sig", newline="") as stream:  # or with a byte order mark
            table = tomllib.loads(stream.read())
    except OSError as error:
        raise SetupError(f"cannot read {file}: {error.strerror}") from None
    except ValueError as error:  # not TOML, or not UTF-8
        raise SetupError(f"{file} is not valid TOML: {error}{_advice(file)}") from None
    if os.path.basename(file) == "pyproject.toml":
        for key in ("tool", "linepool"):
            table = table.get(key, {})
            if not isinstance(table, dict):
                raise SetupError(f"{file}: {key} must be a table, not {table!r}")
    elif any(isinstance(table.get(key), dict) for key in ("tool", "linepool")):
        raise SetupError(
            f"{file}: the settings belong at the top of the file; [tool.linepool] is for pyproject.toml"
        )
    settings: dict[str, Any] = {}
    for key, value in table.items():
        name = key.replace("-", "_")
        if name in settings:
            raise SetupError(f"{file}: {name} is given twice")
        if name in FIELDS and FIELDS[name].metadata["unit"] == "octal" and isinstance(value, int):
            # TOML cannot tell 440 from 0o670.
            raise SetupError(f"{file}: {name} must be a string of octal digits, such as '660'")
        settings[name] = value
    return settings
