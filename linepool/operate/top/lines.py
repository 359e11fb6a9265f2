"""Lines of styled text that fit a terminal. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from linepool.operate.tables import cut, padded, width

Part = tuple[str, str]
"""A text, and its style: a name of ``painted``; "": plain."""
Line = list[Part]


def plain(line: Line) -> str:
    """Return the text of a line."""
    return "".join(text for text, _ in line).rstrip()


def fitted(line: Line, columns: int) -> Line:
    """Return a line that has at most so many columns."""
    kept: Line = []
    room = columns
    for text, style in line:
        shown = cut(text, room)
        kept.append((shown, style))
        room -= width(shown)
        if width(text) > width(shown) or room <= 0:
            break
    return kept


def spread(left: Line, right: Line, columns: int) -> Line:
    """Return a line with one part at the left and the other at the right; the left one is cut."""
    end = fitted(right, columns)
    taken = sum(width(text) for text, _ in end)
    begin = fitted(left, max(0, columns - taken - 1))
    gap = columns - taken - sum(width(text) for text, _ in begin)
    return [*begin, (" " * gap, ""), *end]


def cells(parts: Iterable[tuple[Part, int]], gap: int = 2) -> Line:
    """Return parts in columns.

    Args:
        parts: Each with the width of its column; a negative one: it stands at the right of it.
        gap: Blanks between two columns.
    """
    line: Line = []
    for (text, style), size in parts:
        if line:
            line.append((" " * gap, ""))
        line.append((padded(cut(text, abs(size)), abs(size), right=size < 0), style))
    return line


def sparkline(values: Sequence[float | None], heights: Sequence[str], most: float) -> str:
    """Return a row of bars.

    Args:
        values: Their heights; None: nothing is known.
        heights: The characters, the lowest first.
        most: The height of the highest one.
    """
    top = len(heights) - 1
    return "".join(
        " "
        if value is None
        else heights[min(top, max(0, round(top * value / most))) if most else 0]
        for value in values
    )
