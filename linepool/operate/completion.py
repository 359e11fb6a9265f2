"""The command ``linepool completion``: a script that completes this command line in a shell."""

from __future__ import annotations

import argparse
import importlib
import re
from typing import Any

from linepool.errors import SetupError
from linepool.operate.command_list import COMMANDS
from linepool.operate.parser import Parser
from linepool.settings import FIELDS

_SHELLS = ("bash", "zsh", "fish")
_DIRECTORIES = ("setting_chdir",)


def add_to(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "completion",
        description="Print a script that completes commands, options, choices and files in a shell. It needs"
        " linepool[completion].",
        epilog="examples:\n"
        "  linepool completion bash > ~/.local/share/bash-completion/completions/linepool\n"
        "  linepool completion zsh > ~/.zfunc/_linepool  # a directory in fpath\n"
        "  linepool completion fish > ~/.config/fish/completions/linepool.fish",
    )
    parser.add_argument("shell", metavar="SHELL", choices=_SHELLS, help="bash, zsh or fish")
    parser.set_defaults(run=_run, parser=parser)


def _run(options: argparse.Namespace) -> int:
    try:
        import shtab  # type: ignore[import-untyped, unused-ignore]  # noqa: PLC0415 - only here
    except ImportError:
        raise SetupError(
            "completion needs the package shtab: pip install 'linepool[completion]'"
        ) from None
    print(shtab.complete(_whole_parser(shtab.FILE, shtab.DIRECTORY), options.shell))
    return 0


def _whole_parser(file: object, directory: object) -> Parser:
    """Return a parser of all commands, whose options say what completes their values.

    Args:
        file: Completes the names of files.
        directory: Completes the names of directories.
    """
    whole = Parser(prog="linepool")
    whole.add_argument("-V", "--version", action="store_true", help="show what runs, and exit")
    commands = whole.add_subparsers(parser_class=Parser)
    for module in dict.fromkeys(command.module for command in COMMANDS.values()):
        importlib.import_module(f"linepool.operate.{module}").add_to(commands)
    for name, parser in commands.choices.items():
        summary = parser.description = COMMANDS[name].summary  # a shell has one line for it
        commands._choices_actions.append(commands._ChoicesPseudoAction(name, (), summary))
        for action in parser._actions:
            _say_what_completes(action, file, directory)
    return whole


def _say_what_completes(action: Any, file: object, directory: object) -> None:
    action.help = re.split(r"; | \(default", action.help or "", maxsplit=1)[0]
    field = FIELDS.get(action.dest.removeprefix("setting_"))
    if action.dest in _DIRECTORIES:
        action.complete = directory
    elif action.metavar in ("FILE", "PATH", "PATHS", "TARGET", "TRACE"):
        action.complete = file
    elif field is not None and action.nargs != 0:
        schema = field.metadata["parse"].schema
        choices = ["on", "off"] if schema.get("type") == "boolean" else schema.get("enum")
        action.choices = choices or action.choices
