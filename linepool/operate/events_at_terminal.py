"""``linepool events`` at a terminal. Light, as ``tables``."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from linepool.operate.shown import more_of
from linepool.operate.shown_at_terminal import clean
from linepool.operate.tables import Painter, columns, number, seconds, table

_HEAD = ("NO", "LAST", "KIND", "TIMES", "COMMAND", "RAN", "WHY")
_NUMBERS = ("NO", "LAST", "TIMES", "RAN")
_COLOURS = {"timeout": "yellow", "saturated": "yellow"}
_NONE = "no incidents"


def events_at_terminal(records: Sequence[Mapping[str, Any]], *, stacks: bool) -> list[str]:
    """Return incidents for a terminal; ``stacks``: each with its stack below."""
    if not records:
        return [_NONE]
    paint, now = Painter(sys.stdout), time.time()
    head, *rows = table(_HEAD, [_cells(row, now) for row in records], columns(), _NUMBERS)
    lines = [paint(head, "faint")]
    for line, row in zip(rows, records, strict=True):
        lines.append(paint(line, _COLOURS.get(row["kind"], "red")))
        if stacks:
            lines += [f"    {clean(text)}" for text in (whose_of(row), *more_of(row)) if text]
            lines += [
                f"    {clean(one['function'])}  {paint(clean(one['file']) + ':' + str(one['line']), 'faint')}"
                for one in row["stack"]
            ]
    return lines


def _cells(row: Mapping[str, Any], now: float) -> tuple[str, ...]:
    return (
        str(row["number"]),
        f"{seconds(max(0.0, now - row['last']))} ago",
        clean(row["kind"].replace("_", " ")),
        number(row["count"]),
        clean(row["command"] or "-"),
        ran_of(row),
        clean(why_of(row).partition("\n")[0]),
    )


def ran_of(row: Mapping[str, Any]) -> str:
    """Return how long its request had run, or how long it lasted; "-": it has no duration."""
    if row["kind"] == "saturated":
        return seconds(row["last"] - row["first"])
    if row["ran_s"] is None:
        return "-"
    limit = f" of {seconds(row['limit_s'])}" if row["limit_s"] else ""
    return seconds(row["ran_s"]) + limit


def why_of(row: Mapping[str, Any]) -> str:
    """Return what is most worth knowing of an incident, on one line."""
    end = row["signal"] or ("" if row["status"] is None else f"status {row['status']}")
    where = ""
    if row["stack"]:
        call = row["stack"][0]
        where = f"in {call['function']} ({os.path.basename(call['file'])}:{call['line']})"
    texts = [end, row["why"] or "", where]
    return ", ".join(text for text in texts if text)


def whose_of(row: Mapping[str, Any]) -> str:
    """Return whose incident it was."""
    names = ("client", "pid", "slot", "generation", "id")
    return ", ".join(f"{name} {row[name]}" for name in names if row[name] not in (None, ""))
