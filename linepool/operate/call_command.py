"""The command ``linepool call``: call a command of a server that speaks the line protocol."""

from __future__ import annotations

import argparse
import re
from typing import Any

from linepool.operate.calling import (
    UsageError,
    add_address,
    add_options,
    call,
    call_each,
    client_of,
)

_DESCRIPTION = (
    "Call a command of a server, and print what it returns: one value per line, as they come. Errors go to"
    " standard error, with exit status 1."
)
_EXAMPLES = """\
examples:
  linepool call 127.0.0.1:7000 add 2 3
  linepool call unix:/run/sums.sock countdown 3 --json
  linepool call 127.0.0.1:7000 'say  a line as it is'
  printf 'add 2 3\\nadd 4 5\\n' | linepool call 127.0.0.1:7000 -

Of several words, one with blanks or quotes is sent in quotes. One alone is sent as it is."""
_BARE = re.compile(r"[^\s'\"][^\s]*")
_QUOTABLE = re.compile(r"[^'\\\x00-\x1f\x7f]*")
_ESCAPED = re.compile(r'["\\\x00-\x1f\x7f]')


def add_to(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "call",
        usage="linepool call [OPTIONS] ADDRESS COMMAND [WORD ...]",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
    )
    add_address(parser)
    parser.add_argument(
        "words",
        metavar="WORD",
        nargs="+",
        help="the command and its arguments; -: requests from standard input, one per line",
    )
    add_options(parser)
    parser.set_defaults(run=_run, parser=parser)


def _run(options: argparse.Namespace) -> int:
    if options.address.isidentifier():  # the name of a command
        raise UsageError(
            f"the address of the server comes first: linepool call HOST:PORT {options.address} ..."
        )
    with client_of(options) as client:
        if options.words == ["-"]:
            return call_each(client, as_json=options.json)
        words = options.words
        line = words[0] if len(words) == 1 else " ".join(map(quoted, words))
        return call(client, line.encode(errors="surrogateescape"), as_json=options.json)


def quoted(word: str) -> str:
    """Return a word as a line has it: in quotes if need be."""
    if _BARE.fullmatch(word):
        return word
    if _QUOTABLE.fullmatch(word):
        return f"'{word}'"
    return '"' + _ESCAPED.sub(_escape, word) + '"'


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    return f"\\{character}" if character in '"\\' else f"\\x{ord(character):02x}"
