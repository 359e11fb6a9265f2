"""The command ``linepool top``: a running server at a glance."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from linepool.errors import SetupError
from linepool.operate.chosen_server import add_control, control_of
from linepool.operate.outcome import interval
from linepool.operate.screen import Ended, is_screen
from linepool.operate.tables import columns

_DESCRIPTION = (
    "Show a running server at a glance, again every second: how it is, in a sentence; workers, waiting"
    " clients, requests and their durations; the requests that run, and how near each is to its time limit;"
    " commands; incidents. Keys: ? lists them, q quits. Where there is no terminal, show it once."
)
_EPILOG = """\
examples:
  linepool top
  linepool top --once
  linepool top --lines --interval 10 >> sums.log

The screen needs linepool[top] (rich); --once and --lines do not."""


def add_to(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser("top", description=_DESCRIPTION, epilog=_EPILOG)
    parser.add_argument(
        "--interval",
        metavar="S",
        type=interval,
        default=1.0,
        help="seconds between two looks (default: 1)",
    )
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument("--once", action="store_true", help="show it once, as text")
    shown.add_argument(
        "--lines", action="store_true", help="print one line per look, as text for a log"
    )
    add_control(parser)
    parser.set_defaults(run=_run, parser=parser)


def _run(options: argparse.Namespace) -> int:
    from linepool.operate.top import layout, live  # noqa: PLC0415 - heavy: --help needs none of it
    from linepool.operate.top.lines import plain  # noqa: PLC0415
    from linepool.operate.top.looks import Asker  # noqa: PLC0415
    from linepool.operate.top.signs import signs_for  # noqa: PLC0415

    asker = Asker(lambda: control_of(options))
    signs = signs_for(sys.stdout.encoding or "ascii", os.environ)
    if options.lines:
        live.as_lines(asker, options.interval, layout.as_one_line)
        return 0
    if options.once or not is_screen():
        view = live.one_view(asker)
        print("\n".join(plain(line) for line in layout.snapshot(view, (columns(), 0), signs)))
        return 0
    paint = _painter()
    try:
        live.Live(asker, asker.look(), options.interval, signs, paint).run()
    except Ended as end:
        return end.status
    return 0


def _painter() -> Any:
    try:
        from linepool.operate.top.painted import painter  # noqa: PLC0415 - an extra
    except ImportError:
        raise SetupError(
            "top needs the package rich: pip install 'linepool[top]'; without it: linepool top --once"
        ) from None
    return painter()
