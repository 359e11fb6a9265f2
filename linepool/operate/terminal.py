"""What is shown at a terminal: a server may be another program, and its replies anything."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TextIO


def printable(lines: Iterable[str], stream: TextIO) -> str:
    """Return lines with everything escaped that could do more to a terminal than show a character.

    Args:
        lines: Without line endings; one in the middle of a line is escaped too.
        stream: Where they are written; what its encoding lacks is escaped as well.
    """
    plain = ("".join(c if c.isprintable() else ascii(c)[1:-1] for c in line) for line in lines)
    encoding = stream.encoding or "utf-8"
    return "\n".join(plain).encode(encoding, "backslashreplace").decode(encoding)


def error_lines(message: str) -> str:
    """Return a message of the command line as it is shown on standard error."""
    return printable(f"linepool: {message}".split("\n"), sys.stderr)


def print_error(message: str) -> None:
    """Show a message of the command line on standard error."""
    print(error_lines(message), file=sys.stderr)
