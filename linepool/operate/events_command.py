"""The command ``linepool events``: the last incidents of a running server, and those that come."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from typing import Any

from linepool.operate import remote
from linepool.operate.chosen_server import add_control, control_of
from linepool.operate.shown import events_as_lines
from linepool.operate.terminal import printable

_EVERY = 1.0  # seconds between two looks, with --follow


def add_to(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the command to the command line."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "events",
        epilog="examples:\n  linepool events --stacks\n  linepool events --follow --json",
    )
    parser.description = (
        "Show the last hundred incidents of a running server, the newest last: workers that were killed or"
        " died, requests that took too long, times at which all workers were busy and clients waited, failed"
        " reloads. What happens again within a minute, at the same place, is one incident with a count."
    )
    parser.add_argument(
        "--json", action="store_true", help="print JSON: an array, or with -f an object per line"
    )
    parser.add_argument("--stacks", action="store_true", help="show the stack of each")
    parser.add_argument(
        "-f", "--follow", action="store_true", help="wait for further ones, until it is interrupted"
    )
    add_control(parser)
    parser.set_defaults(run=_run, parser=parser)


@remote.understood()
def _run(options: argparse.Namespace) -> int:
    path = control_of(options)
    if options.follow:
        for records in _followed(path):
            if options.json:
                _show([json.dumps(one) for one in records])
            else:
                _show(events_as_lines(records, stacks=options.stacks))
        return 0
    records = remote.events(path)
    if options.json:
        _show([json.dumps(records)])
    elif sys.stdout.isatty():
        from linepool.operate.events_at_terminal import events_at_terminal  # noqa: PLC0415

        _show_as_it_is(events_at_terminal(records, stacks=options.stacks))
    else:
        _show(events_as_lines(records, stacks=options.stacks))
    return 0


def _followed(path: str) -> Iterator[list[dict[str, Any]]]:
    """Yield the incidents that there are, and then what is new: those that begin, or happen once more."""
    counts: dict[tuple[int, float], int] = {}
    since = 0
    while True:
        found = remote.events(path, since)
        since = max((one["change"] for one in found), default=since)
        yield [one for one in found if counts.get((one["number"], one["first"])) != one["count"]]
        counts.update({(one["number"], one["first"]): one["count"] for one in found})
        time.sleep(_EVERY)


def _show(lines: list[str]) -> None:
    if lines:
        print(printable(lines, sys.stdout), flush=True)


def _show_as_it_is(lines: list[str]) -> None:
    if lines:
        print("\n".join(lines), flush=True)
