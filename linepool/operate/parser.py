"""The command line's parser: an error is one line, which names the nearest option.

Light: the health check imports it.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from linepool.near import nearest

EXIT_FAILURE = 1
EXIT_USAGE = 2


class Parser(argparse.ArgumentParser):
    """A parser that reports an error on one line."""

    def __init__(self, **options: Any) -> None:
        super().__init__(
            allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **options
        )

    def error(self, message: str) -> NoReturn:
        """Print one line and exit."""
        self.exit(EXIT_USAGE, f"{self.prog}: {message} (see {self.prog} --help)\n")


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> argparse.Namespace:
    """Return the options; for an unknown one, exit with the nearest known option in the message."""
    options, surplus = parser.parse_known_args(arguments)
    if surplus:
        subparser: argparse.ArgumentParser = getattr(options, "parser", parser)
        known = [name for action in subparser._actions for name in action.option_strings]
        subparser.error(f"unknown argument {surplus[0]}{hint(surplus[0], known)}")
    return options


def hint(option: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """Return a question that names the known option nearest to another one; "": none is near."""
    near = nearest(option.partition("=")[0], known, cutoff)
    return f"; did you mean {near}?" if near else ""
