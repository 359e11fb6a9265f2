"""The command line: what is given there goes to the module of its command, and only that is imported.

Exit status: 0 success, 1 failure, 2 usage or configuration error, 128 + the number of a signal that ended it.
"""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
from collections.abc import Sequence

from linepool.errors import SetupError
from linepool.kernel.shortage import what_is_short
from linepool.kernel.standard import fill_standard_descriptors
from linepool.operate.command_list import COMMANDS, GROUPS, wrong_command
from linepool.operate.parser import EXIT_FAILURE, EXIT_USAGE, Parser, parse
from linepool.operate.terminal import print_error


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit status.

    Args:
        arguments: Those of the command line, without the program's name; None: those of this process.

    Raises:
        SystemExit: After ``--help`` and ``--version``, and for a wrong use of a command.
    """
    fill_standard_descriptors()
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        status = _status_of(words)
        sys.stdout.flush()
    except SetupError as error:
        print_error(str(error))
        return EXIT_USAGE if error.is_usage else EXIT_FAILURE
    except KeyboardInterrupt:  # while the target is loaded; a running server handles it itself
        return 128 + signal.SIGINT
    except BrokenPipeError:  # stdout is closed, as in: linepool status | head -1
        _give_up_stdout()
        return EXIT_FAILURE
    except Exception as error:
        short = what_is_short(error)
        if not short:
            raise
        _give_up_stdout()  # it may be what is full
        print_error(f"{words[0]} failed: {short}" if words else short)
        return EXIT_FAILURE
    return status


def _status_of(words: Sequence[str]) -> int:
    """Run one command; return the exit status."""
    if not words or words[0] not in COMMANDS:
        return _without_command(words)
    options = parse(_parser(words[0]), words)
    status: int = options.run(options)
    return status


def _give_up_stdout() -> None:
    """Have what is still to be written to standard output go nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parser(name: str) -> argparse.ArgumentParser:
    """Return the parser for one command, whose module alone is imported."""
    parser = Parser(prog="linepool")
    module = importlib.import_module(f"linepool.operate.{COMMANDS[name].module}")
    module.add_to(parser.add_subparsers(parser_class=Parser))
    return parser


def _without_command(words: Sequence[str]) -> int:
    if not words:
        print(_help().format_help(), end="", file=sys.stderr)
        return EXIT_USAGE
    if words[0] in ("-h", "--help"):
        print(_help().format_help(), end="")
    elif words[0] in ("-V", "--version"):
        from linepool.core import about  # noqa: PLC0415 - it imports the core, to see which one runs

        print(about)
    else:
        print_error(f"{wrong_command(words[0])} (see linepool --help)")
        return EXIT_USAGE
    return 0


def _help() -> argparse.ArgumentParser:
    """Return a parser that shows all commands, and parses none of them."""
    parser = Parser(
        prog="linepool",
        usage="linepool [-h] [-V] COMMAND ...",
        description="Serve plain Python functions to telnet, netcat and any program that can write"
        " a line.",
        epilog="""\
example:
  linepool run sums.py -b 127.0.0.1:7000 -w 4

The options of a command: linepool COMMAND --help

exit status:
  0      success; a server was stopped by a signal or by 'linepool stop'
  1      failure: a server does not start, does not answer, or refuses
  2      the command line or the configuration is wrong
  128+N  ended by the signal N, such as 130 for ctrl-C while an app is loaded""",
    )
    parser.add_argument("-V", "--version", action="store_true", help="show what runs, and exit")
    for group, names in GROUPS.items():
        shown = parser.add_argument_group(group)
        for name in names:
            shown.add_argument(name, help=COMMANDS[name].summary)
    return parser
