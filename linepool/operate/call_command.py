"""The command ``linepool call``: call a command of a server that speaks the line protocol."""

from __future__ import annotations

import argparse
import base64
import json
import re
import sys
from typing import Any

from linepool.client.blocking import Client
from linepool.errors import LinepoolError, SetupError
from linepool.operate.parser import EXIT_FAILURE
from linepool.operate.terminal import print_error, printable

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
_TIMEOUT_S = 30.0


class _UsageError(SetupError):
    is_usage = True


def add_to(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "call",
        usage="linepool call [OPTIONS] ADDRESS COMMAND [WORD ...]",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
    )
    parser.add_argument("address", metavar="ADDRESS", help="HOST:PORT, PORT or unix:/PATH")
    parser.add_argument(
        "words",
        metavar="WORD",
        nargs="+",
        help="the command and its arguments; -: requests from standard input, one per line",
    )
    parser.add_argument("--json", action="store_true", help="print each value as JSON on one line")
    parser.add_argument(
        "--timeout",
        metavar="S",
        type=float,
        default=_TIMEOUT_S,
        help=f"how long to wait for each value, in seconds (default: {_TIMEOUT_S:g})",
    )
    parser.set_defaults(run=_run, parser=parser)


def _run(options: argparse.Namespace) -> int:
    try:
        client = Client(options.address, timeout=options.timeout, retries=False)
    except ValueError as error:
        raise _UsageError(str(error)) from None
    with client:
        if options.words == ["-"]:
            return _call_each(client, as_json=options.json)
        words = options.words
        line = words[0] if len(words) == 1 else " ".join(map(quoted, words))
        return _call(client, line.encode(errors="surrogateescape"), as_json=options.json)


def _call_each(client: Client, *, as_json: bool) -> int:
    status = 0
    for line in sys.stdin.buffer:
        if text := line.strip():
            status = _call(client, text, as_json=as_json) or status
    return status


def _call(client: Client, line: bytes, *, as_json: bool) -> int:
    """Call a line, print its values, and return the exit status."""
    try:
        for value in client.stream_line(line):
            _show(value, as_json=as_json)
    except LinepoolError as error:
        print_error(str(error))
        return EXIT_FAILURE
    return 0


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


def _show(value: Any, *, as_json: bool) -> None:
    """Print a value; bytes as they are, without a line ending."""
    if isinstance(value, bytes) and not as_json:
        sys.stdout.flush()
        sys.stdout.buffer.write(value)
        sys.stdout.buffer.flush()
        return
    print(_text(value, as_json=as_json), flush=True)


def _text(value: Any, *, as_json: bool) -> str:
    if not as_json and value is None:
        return "OK"
    if not as_json and isinstance(value, str):
        return printable(value.split("\n"), sys.stdout) if sys.stdout.isatty() else value
    if isinstance(value, bytes):
        value = base64.b64encode(value).decode()
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
