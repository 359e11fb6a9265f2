"""What is shown to people at a terminal: tables that fit it, and units that are easy to read.

Light: commands that ask a running server import it, and only at a terminal. Standard library alone.
"""

from __future__ import annotations

import os
import shutil
import unicodedata
from collections.abc import Sequence
from typing import TextIO

_GAP = "  "
_LEAST = 8  # columns that the last cell of a row has, however narrow the terminal
_INVISIBLE = ("Mn", "Me", "Cf")
_COLOURS = {"red": "31", "yellow": "33", "green": "32", "bold": "1", "faint": "2"}
_UNITS = ((86400, "d"), (3600, "h"), (60, "min"))


def is_terminal(stream: TextIO) -> bool:
    """Whether people read what is written to a stream."""
    return stream.isatty()


def columns() -> int:
    """Return the width of the terminal; the variable COLUMNS overrides it."""
    return shutil.get_terminal_size().columns


def has_colours(stream: TextIO) -> bool:
    """Whether a stream shows colours: a terminal that is not dumb, without NO_COLOR (no-color.org)."""
    return (
        stream.isatty()
        and not os.environ.get("NO_COLOR")
        and os.environ.get("TERM", "dumb") != "dumb"
    )


class Painter:
    """Paints texts, or leaves them as they are.

    Args:
        stream: Where they are written.
    """

    def __init__(self, stream: TextIO) -> None:
        self._paints = has_colours(stream)

    def __call__(self, text: str, colour: str) -> str:
        """Return a text in a colour of ``_COLOURS``; its width on the terminal stays."""
        return f"\033[{_COLOURS[colour]}m{text}\033[0m" if self._paints and text else text


def width(text: str) -> int:
    """Return how many columns a text takes; East Asian wide characters take two (UAX #11)."""
    if text.isascii():
        return len(text)
    return sum(map(_width, text))


def cut(text: str, most: int) -> str:
    """Return a text in at most so many columns; one that is cut ends with an ellipsis."""
    if width(text) <= most:
        return text
    kept, room = [], most - 1
    for character in text:
        room -= _width(character)
        if room < 0:
            break
        kept.append(character)
    return "".join(kept) + "…" if most > 0 else ""


def padded(text: str, columns: int, *, right: bool = False) -> str:
    """Return a text with blanks up to a width, after it or before it."""
    blanks = " " * (columns - width(text))
    return blanks + text if right else text + blanks


def table(
    head: Sequence[str], rows: Sequence[Sequence[str]], most: int, right: Sequence[str] = ()
) -> list[str]:
    """Return the lines of a table.

    Args:
        head: The names of its columns.
        rows: Printable cells.
        most: Columns of the terminal; the last cell is cut so that a line fits.
        right: The names of the columns that are numbers.
    """
    cells = [list(head), *map(list, rows)]
    widths = [max(width(row[at]) for row in cells) for at in range(len(head))]
    before = sum(widths[:-1]) + len(_GAP) * (len(head) - 1)
    widths[-1] = max(_LEAST, min(widths[-1], most - before))
    return [
        _GAP.join(
            padded(cut(cell, widths[at]), widths[at], right=head[at] in right)
            for at, cell in enumerate(row)
        ).rstrip()
        for row in cells
    ]


def seconds(value: float) -> str:
    """Return a duration in its two largest units: 0.35 s, 3.2 s, 45 s, 2 min 5 s, 2 d 3 h."""
    if value < 10:
        return f"{value:.2g} s" if value < 1 else f"{value:.1f} s".replace(".0 s", " s")
    whole = round(value)
    for at, (size, unit) in enumerate(_UNITS):
        if whole >= size:
            smaller, name = _UNITS[at + 1] if at + 1 < len(_UNITS) else (1, "s")
            rest = whole % size // smaller
            return f"{whole // size} {unit}" + (f" {rest} {name}" if rest else "")
    return f"{whole} s"


def brief(value: float) -> str:
    """Return a duration that may be short: 0.081 ms, 12 ms, 3.2 s; otherwise as ``seconds``."""
    if value >= 0.9995 or not value:
        return seconds(value)
    return f"{1000 * value:.0f} ms" if value >= 0.0995 else f"{1000 * value:.2g} ms"


def size(count: float | None) -> str:
    """Return a number of bytes, in units of 1,000: 17 MB, 1.2 GB; None: unknown."""
    if count is None:
        return "-"
    value, units = float(count), ["B", "kB", "MB", "GB", "TB"]
    while value >= 999.5 and len(units) > 1:
        value /= 1000
        del units[0]
    return (
        f"{value:.1f} {units[0]}" if value < 10 and units[0] != "B" else f"{value:.0f} {units[0]}"
    )


def number(count: int) -> str:
    """Return a number with its thousands set apart: 1,234,567."""
    return f"{count:,}"


def counted(count: int, noun: str) -> str:
    """Return a number of things: 1 worker, 2 workers."""
    return f"{number(count)} {noun}{'' if count == 1 else 's'}"


def _width(character: str) -> int:
    if unicodedata.category(character) in _INVISIBLE:
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
