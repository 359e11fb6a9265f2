"""The command ``linepool check``: shows what would be served, without serving it."""

from __future__ import annotations

import argparse
import json
from typing import Any

from attrs import asdict

from linepool.app import App
from linepool.operate import before_load, target
from linepool.operate.config import Configuration
from linepool.operate.log_config import apply as apply_log_config
from linepool.operate.options import add_settings, given
from linepool.operate.terminal import print_error
from linepool.protocols.base import Limits
from linepool.settings import FIELDS, written


def add_to(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the command to the command line."""
    check = commands.add_parser(
        "check",
        help="show an app's commands and the effective settings",
        description="Load an app and show its commands and settings, without serving it.",
        epilog="example:\n  linepool check sums.py",
    )
    check.add_argument("target", metavar="TARGET", help="FILE.py, a package, MODULE or MODULE:APP")
    check.add_argument("--json", action="store_true", help="print JSON")
    add_settings(check)
    check.set_defaults(run=_check, parser=check)


def warnings(app: App, configuration: Configuration) -> list[str]:
    """Return what is worth a warning before an app is served."""
    found = [f"environment: {warning}" for warning in configuration.warnings]
    found += target.loaded_twice(app)
    if left_out := target.left_out(app):
        found.append(f"{left_out} is not served: it does not belong to the app {app.name!r}")
    return found


def _check(options: argparse.Namespace) -> int:
    outside = given(options)
    process = outside.process_settings()
    before_load.become(before_load.enter(process), process)
    apply_log_config(outside.value("log_config"))
    app = target.load(options.target)
    configuration = outside.configuration(app)
    for warning in warnings(app, configuration):
        print_error(warning)
    settings = configuration.settings
    service = app.freeze(Limits(settings.max_line_bytes, settings.max_body_bytes))
    if options.json:
        entries = [
            {
                "names": entry.names,
                "usage": entry.usage,
                "timeout": entry.timeout,
                "place": entry.place,
            }
            for entry in service.commands
        ]
        shown = {
            name: written(name, value) for name, value in asdict(settings, recurse=False).items()
        }
        print(json.dumps({"name": app.name, "commands": entries, "settings": shown}))
        return 0
    print(f"{app.name}: {len(service.commands)} commands")
    for entry in service.commands:
        print(f"  {entry.usage:<40} {entry.place}".rstrip())
    print("settings")
    for name in FIELDS:
        source = configuration.sources.get(name)
        mark = f"  ({source})" if source else ""
        print(f"  {name:<20} {written(name, getattr(settings, name))}{mark}")
    return 0
