"""The command ``linepool check``: shows what would be served, without serving it."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from attrs import asdict

from linepool.app import App
from linepool.operate import tables, target
from linepool.operate.config import COMMAND_LINE, ENVIRONMENT, Configuration, option_name
from linepool.operate.environment import PREFIX
from linepool.operate.options import add_settings, prepared
from linepool.operate.terminal import print_error, printable
from linepool.protocols.base import Limits
from linepool.protocols.document import described
from linepool.service import Entry, Service
from linepool.settings import FIELDS, IN_FOREGROUND, written
from linepool.settings.foreground import without_effect

_SHOWN_NAMES = 5  # of commands in a warning


def add_to(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the command to the command line."""
    check = commands.add_parser(
        "check",
        description="Load an app and show its commands and settings, without serving it.",
        epilog="examples:\n  linepool check sums.py\n  linepool check sums.py --settings",
    )
    check.add_argument(
        "target",
        metavar="TARGET",
        nargs="?",
        help="FILE.py, a package, MODULE, or one of these with :APP or :FUNCTION()",
    )
    check.add_argument("--json", action="store_true", help="print JSON")
    check.add_argument(
        "--settings",
        action="store_true",
        help="show the settings only, each with its source; TARGET may be left out then",
    )
    add_settings(check)
    check.set_defaults(run=_check, parser=check)


def warnings(app: App, configuration: Configuration) -> list[str]:
    """Return what is worth a warning before an app is served."""
    found = [*configuration.warnings]
    if configuration.settings.workers == IN_FOREGROUND and (
        unused := without_effect(configuration.sources)
    ):
        found.append(f"no effect with workers = 0, in the foreground: {', '.join(unused)}")
    found += _loaded_twice(app)
    if left_out := target.left_out(app):
        found.append(f"{left_out} is not served: it does not belong to the app {app.name!r}")
    return found


def _unannotated(commands: Sequence[Entry]) -> str:
    """Return a warning of handlers that do not say what they return; "": all do."""
    names = [one.name for one in commands if one.returns is None and not one.is_builtin]
    if not names:
        return ""
    shown = ", ".join(names[:_SHOWN_NAMES]) + ", ..." * (len(names) > _SHOWN_NAMES)
    return f"no return annotation: {shown}; HELP and the schema cannot say what their replies look like"


def _loaded_twice(app: App) -> list[str]:
    """Return a line for each file of an app that was loaded as two modules."""
    code = [getattr(function, "__code__", None) for function in app.functions]
    files = {_identity(one.co_filename) for one in code if one is not None}
    found: dict[str, dict[int, str]] = {}
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if isinstance(file, str) and _identity(file) in files:
            found.setdefault(target.real_path(file), {})[id(module)] = name
    return [
        f"{file} is loaded twice, as {' and as '.join(names.values())}: what is changed in one module"
        " does not change the other"
        for file, names in found.items()
        if len(names) > 1
    ]


def _identity(path: str) -> object:
    """Return what all names of one file have in common; quick, for it is asked of all modules."""
    try:
        found = os.stat(path)
    except OSError:  # in an archive
        return path
    return found.st_dev, found.st_ino


def _check(options: argparse.Namespace) -> int:
    if options.target is None and not options.settings:
        options.parser.error("give a TARGET, or --settings")
    outside = prepared(options)
    app = App()
    if options.target is not None:
        app = target.load(options.target)
        outside.fill(app)
    configuration = outside.configuration(app)
    for warning in warnings(app, configuration):
        print_error(warning)
    settings = configuration.settings
    service = app.freeze(Limits(settings.max_line_bytes, settings.max_body_bytes))
    if unannotated := _unannotated(service.commands):
        print_error(unannotated)
    if options.json:
        _print_json(app, service, configuration, only_settings=options.settings)
        return 0
    if sys.stdout.isatty() and not options.settings:
        _show_at_terminal(app, service, configuration)
        return 0
    if options.settings:
        rows = [
            (name, written(name, getattr(settings, name)), _source(configuration, name))
            for name in FIELDS
        ]
        _print_rows(rows)
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


def _show_at_terminal(app: App, service: Service, configuration: Configuration) -> None:
    """Show the commands, and those settings that are not the default."""
    paint, most = tables.Painter(sys.stdout), tables.columns()

    def shown(text: object) -> str:
        return printable([str(text)], sys.stdout)

    print(f"{paint(shown(app.name), 'bold')}  {tables.counted(len(service.commands), 'command')}\n")
    head, *lines = _table_of_commands(service, shown, most)
    print(paint(head, "faint"), *lines, "", sep="\n")
    given = [name for name in FIELDS if name in configuration.sources]
    if given:
        values = {name: written(name, getattr(configuration.settings, name)) for name in given}
        rows_of_settings = [
            (name, shown(values[name]), shown(_source(configuration, name))) for name in given
        ]
        head, *lines = tables.table(("SETTING", "VALUE", "FROM"), rows_of_settings, most)
        print(paint(head, "faint"), *lines, "", sep="\n")
    others = tables.counted(len(FIELDS) - len(given), "setting")
    print(f"{others} at their default: 'linepool check --settings' shows all")


def _table_of_commands(service: Service, shown: Callable[[object], str], most: int) -> list[str]:
    """Return the lines of a table; without what the commands return, if the terminal is too narrow."""
    rows = [
        (shown(entry.usage), shown(service.protocol.shape(entry).text), shown(entry.place))
        for entry in service.commands
    ]
    whole = tables.table(("COMMAND", "RETURNS", "AT"), rows, sys.maxsize)
    if max(map(tables.width, whole)) <= most:
        return whole
    return tables.table(("COMMAND", "AT"), [(row[0], row[2]) for row in rows], most)


def _print_json(
    app: App, service: Service, configuration: Configuration, *, only_settings: bool
) -> None:
    values = asdict(configuration.settings, recurse=False)
    facts: dict[str, object] = {
        "settings": {name: written(name, value) for name, value in values.items()},
        "sources": {name: _source(configuration, name) for name in values},
    }
    if not only_settings:
        document = described(service.name, service.protocol, service.commands)
        entries = [
            {
                "names": entry.names,
                "usage": entry.usage,
                "timeout": entry.timeout,
                "place": entry.place,
                "params": one["params"],
                "reply": one["reply"],
            }
            for entry, one in zip(service.commands, document["commands"], strict=True)
        ]
        classes = {"$defs": document["$defs"]}
        facts = {"name": app.name, "commands": entries, **classes, **facts}
    print(json.dumps(facts))


def _source(configuration: Configuration, name: str) -> str:
    """Return where the value of a setting is from: an option, a variable, a file ..."""
    source = configuration.sources.get(name, "default")
    if source == COMMAND_LINE:
        return option_name(name)
    if source == ENVIRONMENT:
        return PREFIX + name.upper()
    return source


def _print_rows(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
    print(printable(lines, sys.stdout))
