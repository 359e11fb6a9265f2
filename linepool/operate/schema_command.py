"""The command ``linepool schema``: describes an app's commands for programs, without serving it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any

from linepool.errors import SetupError
from linepool.near import nearest
from linepool.operate import target, targets
from linepool.operate.options import add_settings, prepared
from linepool.protocols.document import for_one
from linepool.service import Entry, Service

_SETTINGS = ("chdir",)


class _UnknownCommandError(SetupError):
    """The app has no command of the name that was given."""

    is_usage = True


def add_to(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the command to the command line."""
    schema = commands.add_parser(
        "schema",
        description="Load an app and print a description of its commands as JSON: parameters, replies, and"
        " a JSON Schema (draft 2020-12) of each type. The digest changes when a client would have to.",
        epilog="examples:\n  linepool schema sums.py > sums.schema.json\n  linepool schema sums.py ADD",
    )
    schema.add_argument(
        "target",
        metavar="TARGET",
        nargs="?",
        help="FILE.py, a package, MODULE, or one of these with :APP or :FUNCTION(); none: what linepool.toml"
        " names as target",
    )
    schema.add_argument(
        "command",
        metavar="COMMAND",
        nargs="*",
        help="describe this command only (default: all); or further targets, each of which is then described"
        " under the name of its app",
    )
    add_settings(schema, _SETTINGS)
    schema.set_defaults(run=_run, parser=schema)


def _run(options: argparse.Namespace) -> int:
    outside = prepared(options)
    if options.target is None:
        return _print_all(targets.words_of(outside.targets))
    if len(options.command) > 1 or any(map(targets.is_target, options.command)):
        words = [targets.parse_word(text) for text in (options.target, *options.command)]
        return _print_all(words)
    service = target.load(targets.parse_word(options.target).target).freeze()
    document = service.document
    for command in options.command:
        document = for_one(document, service.protocol, _entry(service, command))
    print(json.dumps(document, indent=2))
    return 0


def _print_all(words: Sequence[targets.Word]) -> int:
    """Describe apps: one, or several, each under its name."""
    apps, _ = targets.load(words, ())
    documents = {app.name: app.freeze().document for app in apps}
    print(json.dumps(documents if len(documents) > 1 else apps.first.freeze().document, indent=2))
    return 0


def _entry(service: Service, name: str) -> Entry:
    entry = service.find(name.encode("utf-8", "surrogateescape"))
    if entry is None:
        near = nearest(name.upper() if service.protocol.ignores_case else name, _names(service))
        hint = f"did you mean {near}?" if near else f"the commands are {', '.join(_names(service))}"
        raise _UnknownCommandError(f"unknown command {name!r}; {hint}")
    return entry


def _names(service: Service) -> list[str]:
    return [entry.name for entry in service.commands if not entry.is_builtin]
