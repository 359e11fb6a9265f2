"""Lines in colours, by rich, which is an extra: it knows how many of them a terminal has."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.text import Text

from linepool.operate.tables import has_colours
from linepool.operate.top.lines import Line

# Blue and vermilion are told apart by the colour-blind; and each state has a shape too.
_BAD, _NOTE, _BLUE = "#d7553c", "#d7a52d", "#5f87b7"
_STYLES = {
    "": "",
    "bold": "bold",
    "faint": "dim",
    "bad": f"bold {_BAD}",
    "note": _NOTE,
    "good": "",
    "bar": _BLUE,
    "banner bad": f"bold white on {_BAD}",
    "banner note": f"bold black on {_NOTE}",
}


def painter() -> Callable[[Sequence[Line]], list[str]]:
    """Return what paints lines as the terminal can show them."""
    is_coloured = has_colours(sys.stdout)
    console = Console(
        file=io.StringIO(),
        force_terminal=True,
        color_system="auto" if is_coloured else None,
        no_color=not is_coloured,
        legacy_windows=False,
        highlight=False,
        markup=False,
        emoji=False,
        width=10_000,
        _environ=os.environ,
    )

    def paint(lines: Sequence[Line]) -> list[str]:
        return [_painted(line, console) for line in lines]

    return paint


def _painted(line: Line, console: Console) -> str:
    text = Text.assemble(*((part, _STYLES[style]) for part, style in line), end="")
    with console.capture() as capture:
        console.print(text, end="", soft_wrap=True)
    return capture.get()
