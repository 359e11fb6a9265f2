"""The options of the settings, which several commands share."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Mapping

from linepool.app import App
from linepool.operate.config import Configuration, configure, option_name
from linepool.settings import FIELDS, written


def add_settings(parser: argparse.ArgumentParser, names: Iterable[str] = FIELDS) -> None:
    """Add an option for the file, and one for each of some settings."""
    parser.add_argument("--config", metavar="FILE", help="TOML file with settings")
    group = parser.add_argument_group("settings")
    for name in names:
        field = FIELDS[name]
        unit = field.metadata["unit"]
        default = "1:max(4, 4 x CPUs)" if name == "workers" else written(name, field.default)
        text = f"{field.metadata['doc']} (default: {default})"
        group.add_argument(
            option_name(name),
            dest=f"setting_{name}",
            metavar=unit.upper().replace(" ", "-") or "NAME",
            action="append" if name == "bind" else "store",
            help=text.replace("%", "%%"),
        )


def given_settings(options: argparse.Namespace) -> dict[str, object]:
    """Return the settings that the command line gives, by name, as they were written."""
    return {
        name.removeprefix("setting_"): value
        for name, value in vars(options).items()
        if name.startswith("setting_") and value is not None
    }


def configured(
    app: App, options: argparse.Namespace, environment: Mapping[str, str] | None = None
) -> Configuration:
    """Return the effective settings of an app; see ``configure``.

    Args:
        app: The app.
        options: Of the command line; ``add_settings`` has added them.
        environment: The variables; None: those of this process.

    Raises:
        ConfigError: A name or a value is wrong.
    """
    if environment is None:
        environment = os.environ
    return configure(app, given_settings(options), environment, options.config)
