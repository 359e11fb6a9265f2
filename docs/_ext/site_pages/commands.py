"""The page on the command line, from the parsers of the commands."""

from __future__ import annotations

import argparse
import importlib
import re
from collections.abc import Iterator

from linepool.operate.command_list import COMMANDS, GROUPS
from linepool.operate.parser import Parser
from site_pages.markdown import escaped, table

_HEAD = """\
# The command line

Each command with its arguments and options, as `linepool COMMAND --help` shows them. The exit status is 0
after success, 1 after a failure, 2 if the command line or the configuration is wrong.

"""


def page() -> str:
    """Return the text of the page."""
    lines = [_HEAD]
    for group, names in GROUPS.items():
        rows = [
            (f"[`linepool {name}`](#linepool-{name})", command.summary)
            for name, command in names.items()
        ]
        lines += [f"**{group.capitalize()}**\n\n", table(("command", "does"), rows), "\n"]
    return "".join([*lines, *map(_section, COMMANDS)])


def parser_of(name: str) -> argparse.ArgumentParser:
    """Return the parser of a command."""
    parser = Parser(prog="linepool")
    commands = parser.add_subparsers(parser_class=Parser)
    importlib.import_module(f"linepool.operate.{COMMANDS[name].module}").add_to(commands)
    found: argparse.ArgumentParser = commands.choices[name]
    return found


def _section(name: str) -> str:
    parser = parser_of(name)
    lines = [f"## linepool {name}\n\n", f"```{{program}} linepool {name}\n```\n\n"]
    lines += _paragraphs(parser.description or f"{COMMANDS[name].summary}.".capitalize())
    lines += [f"```text\n{parser.format_usage()}```\n\n"]
    for group in parser._action_groups:
        actions = [one for one in group._group_actions if one.help != argparse.SUPPRESS]
        shown = [text for one in actions for text in _argument(parser, one)]
        if shown and group.title not in ("positional arguments", "options"):
            lines += [f"**{(group.title or '').capitalize()}**\n\n"]
        if shown:
            lines += [*_paragraphs(group.description or ""), *shown]
    return "".join([*lines, *_epilog(parser.epilog or "")])


def _argument(parser: argparse.ArgumentParser, action: argparse.Action) -> Iterator[str]:
    if isinstance(action, argparse._HelpAction):
        return
    formatter = parser.formatter_class(prog=parser.prog)
    shown = formatter._format_action_invocation(action)
    if not action.option_strings:
        shown = str(action.metavar or action.dest)
    text = formatter._expand_help(action) if action.help else ""
    yield f"````{{option}} {shown}\n{escaped(text)}\n````\n\n"


def _paragraphs(text: str) -> Iterator[str]:
    for paragraph in filter(None, text.split("\n\n")):
        if "\n  " in paragraph or paragraph.startswith("  "):
            yield f"```text\n{paragraph.rstrip()}\n```\n\n"
        else:
            yield f"{escaped(paragraph)}\n\n"


def _epilog(text: str) -> Iterator[str]:
    """Yield what follows the options: headings that end with a colon, and the lines below each."""
    for block in filter(None, text.split("\n\n")):
        title, _, rest = block.partition("\n")
        if rest and title.endswith(":"):
            yield f"{escaped(title.capitalize())}\n\n```text\n{_outdented(rest)}\n```\n\n"
        else:
            yield from _paragraphs(block)


def _outdented(text: str) -> str:
    least = min(len(line) - len(line.lstrip()) for line in text.splitlines() if line.strip())
    return re.sub(rf"^ {{{least}}}", "", text.rstrip(), flags=re.MULTILINE)
