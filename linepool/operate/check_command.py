"""The command ``linepool check``: shows what would be served, without serving it."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from linepool.app import App
from linepool.apps import Apps
from linepool.operate import tables, target, targets
from linepool.operate.certificates import Certificates
from linepool.operate.config import COMMAND_LINE, ENVIRONMENT, Configuration, option_name
from linepool.operate.environment import PREFIX
from linepool.operate.options import add_settings, prepared
from linepool.operate.terminal import print_error, printable
from linepool.protocols.document import described
from linepool.service import Entry, Service
from linepool.settings import FIELDS, IN_FOREGROUND, Settings, as_texts, written
from linepool.settings.foreground import without_effect
from linepool.settings.listeners import ListenerTable

if TYPE_CHECKING:
    from linepool.tls.certificates import Certificate

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
        nargs="*",
        help="FILE.py, a package, MODULE, or one of these with :APP or :FUNCTION(), as for 'linepool run'",
    )
    check.add_argument("--json", action="store_true", help="print JSON")
    check.add_argument(
        "--settings",
        action="store_true",
        help="show the settings only, each with its source; TARGET may be left out then",
    )
    add_settings(check)
    check.set_defaults(run=_check, parser=check)


def warnings(apps: Apps, configuration: Configuration) -> list[str]:
    """Return what is worth a warning before apps are served."""
    found = [*configuration.warnings]
    if configuration.settings.workers == IN_FOREGROUND and (
        unused := without_effect(configuration.sources)
    ):
        found.append(f"no effect with workers = 0, in the foreground: {', '.join(unused)}")
    found += _loaded_twice(apps)
    if left_out := target.left_out(*apps):
        names = " or ".join(repr(app.name) for app in apps)
        found.append(f"{left_out} is not served: it does not belong to the app {names}")
    return found


def _unannotated(commands: Sequence[Entry]) -> str:
    """Return a warning of handlers that do not say what they return; "": all do."""
    names = [one.name for one in commands if one.returns is None and not one.is_builtin]
    if not names:
        return ""
    shown = ", ".join(names[:_SHOWN_NAMES]) + ", ..." * (len(names) > _SHOWN_NAMES)
    return f"no return annotation: {shown}; HELP and the schema cannot say what their replies look like"


def _loaded_twice(app: Apps) -> list[str]:
    """Return a line for each file of the apps that was loaded as two modules."""
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
    certificates = Certificates()
    outside = prepared(options, certificates)
    words = targets.words_of(options.target or outside.targets)
    if not words and not options.settings and not any(table.app for table in outside.tables):
        options.parser.error(
            "give a TARGET, or write target = 'TARGET' in linepool.toml; or --settings"
        )
    if words or not options.settings:
        apps, listeners = targets.load(words, outside.tables)
        outside.fill(apps)
    else:
        apps, listeners = Apps([App()]), ()
    configuration = outside.configuration(apps, listeners)
    for warning in warnings(apps, configuration):
        print_error(warning)
    services = apps.freeze(configuration.settings)
    for service in services.values():
        if unannotated := _unannotated(service.commands):
            print_error(unannotated)
    found = _examined(certificates, configuration.settings)
    if options.json:
        _print_json(services, configuration, found, only_settings=options.settings)
        return 0
    if sys.stdout.isatty() and not options.settings:
        _show_at_terminal(services, configuration)
    elif options.settings:
        _print_rows(_rows_of_settings(configuration))
    else:
        _print_plain(services, configuration)
    for certificate in found:
        print(f"certificate {certificate}")
    return 0


def _examined(certificates: Certificates, settings: Settings) -> Sequence[Certificate]:
    """Return the certificates of all listeners, with warnings about them."""
    found = [tls for each in settings.each if (tls := certificates.of(each))]
    for warning in dict.fromkeys(text for tls in found for text in tls.warnings()):
        print_error(warning)
    return list(dict.fromkeys(one for tls in found for one in tls.certificates))


def _rows_of_settings(configuration: Configuration) -> list[tuple[str, str, str]]:
    settings = configuration.settings
    rows = [
        (name, written(name, getattr(settings, name)), _source(configuration, name))
        for name in FIELDS
    ]
    return rows + [("listener", _shown(table), "") for table in settings.listeners]


def _print_plain(services: Mapping[str, Service], configuration: Configuration) -> None:
    for name, service in services.items():
        print(f"{name}: {len(service.commands)} commands{_login(service)}")
        for entry in service.commands:
            print(f"  {entry.usage:<40} {entry.place}".rstrip())
    settings = configuration.settings
    if settings.listeners:
        print("listeners")
        for table in settings.listeners:
            print(f"  {_shown(table)}")
    print("settings")
    for name in FIELDS:
        source = configuration.sources.get(name)
        mark = f"  ({source})" if source else ""
        print(f"  {name:<20} {written(name, getattr(settings, name))}{mark}")


def _login(service: Service) -> str:
    """Return what the number of an app's commands is followed by: which of them need a log-in."""
    if service.authenticate is None:
        return ""
    public = [entry.name for entry in service.commands if entry.is_public]
    return f"; clients have to log in for all but {', '.join(public) or 'none'}"


def _shown(table: ListenerTable) -> str:
    """Return a listener with what it has of its own."""
    facts = {"app": table.app, "name": table.name}
    facts |= {name: written(name, value) for name, value in table.options}
    words = [f"{name}={value}" for name, value in facts.items() if value]
    return " ".join([*table.bind, *words])


def _show_at_terminal(services: Mapping[str, Service], configuration: Configuration) -> None:
    """Show the commands, the listeners, and those settings that are not the default."""
    paint, most = tables.Painter(sys.stdout), tables.columns()

    def shown(text: object) -> str:
        return printable([str(text)], sys.stdout)

    for name, service in services.items():
        count = tables.counted(len(service.commands), "command")
        print(f"{paint(shown(name), 'bold')}  {count}{shown(_login(service))}\n")
        head, *lines = _table_of_commands(service, shown, most)
        print(paint(head, "faint"), *lines, "", sep="\n")
    if listeners := configuration.settings.listeners:
        print(paint("LISTENERS", "faint"), *(shown(_shown(one)) for one in listeners), "", sep="\n")
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
    services: Mapping[str, Service],
    configuration: Configuration,
    certificates: Sequence[Certificate],
    *,
    only_settings: bool,
) -> None:
    values = {name: getattr(configuration.settings, name) for name in FIELDS}
    facts: dict[str, object] = {
        "settings": {name: written(name, value) for name, value in values.items()},
        "sources": {name: _source(configuration, name) for name in values},
        "certificates": [
            {"path": one.path, "names": one.names, "ends": one.ends} for one in certificates
        ],
    }
    if listeners := as_texts(configuration.settings).get("listeners"):
        facts["listeners"] = listeners
    if not only_settings:
        apps = [_app_facts(name, service) for name, service in services.items()]
        facts = {**(apps[0] if len(apps) == 1 else {"apps": apps}), **facts}
    print(json.dumps(facts))


def _app_facts(name: str, service: Service) -> dict[str, object]:
    has_login = service.authenticate is not None
    document = described(service.name, service.protocol, service.commands, has_login=has_login)
    entries = [
        {
            "names": entry.names,
            "usage": entry.usage,
            "timeout": entry.timeout,
            "place": entry.place,
            "params": one["params"],
            "reply": one["reply"],
            **({"public": True} if "public" in one else {}),
        }
        for entry, one in zip(service.commands, document["commands"], strict=True)
    ]
    login = {"login": True} if has_login else {}
    return {"name": name, **login, "commands": entries, "$defs": document["$defs"]}


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
