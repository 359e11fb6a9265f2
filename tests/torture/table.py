"""The tables that the tests print."""

from __future__ import annotations

from collections.abc import Sequence


def show_table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table; its first column is text, the others are aligned to the right."""
    cells = [[str(cell) for cell in row] for row in (headings, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        padded = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        print("  ".join([row[0].ljust(widths[0]), *padded[1:]]).rstrip())
