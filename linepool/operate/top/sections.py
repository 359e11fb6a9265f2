"""The parts of a frame below the figures: the pool, its requests, the commands, the incidents. Pure."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from linepool.operate.shown_at_terminal import clean
from linepool.operate.tables import brief, number, seconds, width
from linepool.operate.top.figures import rate
from linepool.operate.top.history import NEAR, CommandRow, View
from linepool.operate.top.lines import Line, Part, cells
from linepool.operate.top.looks import Incident, Worker
from linepool.operate.top.signs import Signs

NARROW = 60
"""Columns below which there are no bars."""
_LONGEST = 60  # columns of a bar
_LATE = 0.5  # share of its time limit from which a request is worth a note
_NOTES = ("timeout", "saturated")  # kinds of incidents at which no worker is lost
_NAMES = {"near": "near its limit"}


def pool(view: View, columns: int, rows: int, signs: Signs) -> list[Line]:
    """Return the workers as cells, by slot, on so many lines at most; then what the cells mean."""
    label = "pool "
    size = max(1, columns - len(label))
    most = size * rows
    workers = sorted(view.look.workers, key=lambda one: one.slot)
    kinds = [_kind(one) for one in workers[:most]]
    lines: list[Line] = []
    for at in range(0, max(1, len(kinds)), size):
        line: Line = [(" " * len(label) if lines else label, "faint")]
        line += [(signs.worker[kind], _OF_KIND[kind]) for kind in kinds[at : at + size]]
        lines.append(line)
    if len(workers) > most:
        lines[-1] = [*lines[-1][:-12], (f" {number(len(workers) - most + 11)} more", "faint")]
        return lines
    found = dict.fromkeys(kinds)
    legend = "  ".join(f"{signs.worker[kind]} {_NAMES.get(kind, kind)}" for kind in found)
    room = columns - sum(width(text) for text, _ in lines[-1]) - 2
    if width(legend) <= room:
        lines[-1] += [("  ", ""), (legend, "faint")]
    return lines


def lanes(view: View, columns: int, rows: int, signs: Signs) -> list[Line]:
    """Return the requests that run, a line for each, on so many lines at most."""
    running = view.running
    if not running:
        return [[("no request runs", "faint")]][:rows]
    wide = columns >= NARROW
    name = _name_width([one.command for one in running], columns)
    ran = max(4, *(width(_ran(one)) for one in running))
    bar = min(_LONGEST, columns - 4 - 7 - name - ran - 2 * 4) if wide else 0
    heads: list[tuple[Part, int]] = [(("no", "faint"), -4), (("pid", "faint"), -7)]
    heads += [(("command", "faint"), name)]
    heads += [(("how near its limit", "faint"), bar)] if wide else []
    lines = [cells([*heads, (("ran", "faint"), -ran)])]
    if rows < 3:
        lines = []  # requests are worth more than their head
    whole = len(running) + len(lines) <= rows
    kept = running if whole else running[: max(0, rows - len(lines) - 1)]
    for one in kept:
        style = _lateness(one)
        parts: list[tuple[Part, int]] = [((str(one.slot), "faint"), -4), ((str(one.pid), ""), -7)]
        parts += [((one.command, style), name)]
        line = cells(parts)
        if wide:
            line += [("  ", ""), *_bar(one, bar, signs, style or "bar")]
        lines.append([*line, ("  ", ""), *cells([((_ran(one), style), -ran)])])
    if not whole:
        rest = running[len(kept) :]
        longest = seconds(max(one.ran_s for one in rest))
        lines.append([(f"      {number(len(rest))} more, the longest for {longest}", "faint")])
    return lines[:rows]


def commands(view: View, columns: int, rows: int, signs: Signs, order: str = "time") -> list[Line]:
    """Return the commands, a line for each, on so many lines at most."""
    period = (
        f"last {seconds(round(view.period_s) or view.period_s)}"
        if view.period_s
        else "since the start"
    )
    found = sorted(view.commands, key=_ORDERS[order])
    if not found:
        return [[(f"no request was served: {period}", "faint")]][:rows]
    wide = columns >= NARROW
    name = _name_width([one.name for one in found], columns)
    sizes = [-7, -9, -9, -6, -6] if wide else [-7, -9]
    time = min(_LONGEST, columns - name + sum(sizes) - 2 * (len(sizes) + 1))
    titles = ["/s", "p50", "p99", "failed", "killed"] if wide else ["/s", "p99"]
    head = "time" if order == "time" else f"by {order}"
    parts: list[tuple[Part, int]] = [(("command", "faint"), name)]
    parts += [((f"{head}, {period}", "faint"), time)]
    parts += [((title, "faint"), size) for title, size in zip(titles, sizes, strict=True)]
    lines = [cells(parts)]
    for one in found[: max(0, rows - 1)]:
        lost, style = f"{one.killed}", "bad" if one.killed else "faint"
        p50, p99 = (brief(one.p50_s), ""), (brief(one.p99_s), "")
        failed = (_percent(one.failed) if one.failed else "0", "bad" if one.failed else "faint")
        shown: list[Part] = [(rate(one.rate), ""), p50, p99, failed, (lost, style)]
        if not wide:
            shown = [(rate(one.rate), ""), p99]
        line: Line = [*cells([((one.name, "bold"), name)]), ("  ", "")]
        line += [*cells([((_share(one, time, signs), "bar"), time)]), ("  ", "")]
        lines.append([*line, *cells(list(zip(shown, sizes, strict=True)))])
    return lines[:rows]


ORDERS = ("time", "rate", "p99", "failed")
"""By what commands can be sorted."""
_ORDERS: Mapping[str, Any] = {
    "time": lambda one: (-one.share, one.name),
    "rate": lambda one: (-one.rate, one.name),
    "p99": lambda one: (-one.p99_s, one.name),
    "failed": lambda one: (-one.failed * one.rate, -one.killed, one.name),
}


def incidents(view: View, rows: int, signs: Signs) -> list[Line]:
    """Return the last incidents, a line for each, on so many lines at most."""
    shown = view.incidents[:rows]
    kind = max((width(one.kind) for one in shown), default=0)
    return [_incident(one, view, kind, signs) for one in shown]


def incidents_with_stacks(view: View, columns: int, signs: Signs) -> list[Line]:
    """Return all incidents with all that is known of them."""
    lines: list[Line] = []
    kind = max((width(one.kind) for one in view.incidents), default=0)
    for one in view.incidents:
        head = _incident(one, view, kind, signs)
        said = head.pop()[0]
        indent = sum(width(text) for text, _ in head)
        first, *further = textwrap.wrap(said, max(10, columns - indent)) or [""]
        lines.append([*head, (first, "")])
        lines += [[(f"{'':{indent}}{text}", "")] for text in further]
        lines += [[(f"  {one.whose}", "faint")]] if one.whose else []
        lines += [[(f"  {function}  ", ""), (place, "faint")] for function, place in one.stack]
    return lines or [[("no incident is known", "faint")]]


def _incident(one: Incident, view: View, kind: int, signs: Signs) -> Line:
    level = "note" if one.kind in _NOTES else "bad"
    ago = f"{seconds(max(0.0, round(view.look.wall - one.last)))} ago"
    times = f"{number(one.count)} times " if one.count > 1 else ""
    return [
        (f"{signs.level[level]} ", level),
        *cells([((one.kind, level), kind), ((ago, "faint"), 14)]),
        ("  ", ""),
        (f"{times}{one.command} {one.text}".replace("  ", " ").strip(), ""),
    ]


def stacks(rows: Sequence[Mapping[str, Any]]) -> list[Line]:
    """Return what workers do, each with its stack, those that have run the longest first."""
    lines: list[Line] = []
    for row in sorted(rows, key=lambda one: (not one["command"], -one["for_s"])):
        doing = f"{clean(row['state'])} {seconds(row['for_s'])}"
        command = f" in {clean(row['command'])}" if row["command"] else ""
        lines.append([(f"worker {row['slot']} (pid {row['pid']}): {doing}{command}", "bold")])
        for frame in row["stack"]:
            place = f"{clean(frame['file'])}:{frame['line']}"
            lines.append([(f"  {clean(frame['function'])}  ", ""), (place, "faint")])
        if row["no_stack"]:
            lines.append([(f"  {clean(row['no_stack'])}", "faint")])
    return lines or [[("there is no worker", "faint")]]


_OF_KIND = {"busy": "bar", "idle": "faint", "near": "bad", "starting": "note", "leaving": "note"}


def _kind(one: Worker) -> str:
    if one.nearness >= NEAR:
        return "near"
    return one.state if one.state in _OF_KIND else "idle"


def _lateness(one: Worker) -> str:
    if one.nearness >= NEAR:
        return "bad"
    return "note" if one.nearness >= _LATE else ""


def _ran(one: Worker) -> str:
    limit = f" of {seconds(one.limit_s)}" if one.limit_s else ""
    return seconds(one.ran_s) + limit


def _bar(one: Worker, size: int, signs: Signs, style: str) -> Line:
    """Return a bar up to the wall that is the time limit."""
    if not one.limit_s:
        return cells([(("no limit", "faint"), size)])
    room = max(1, size - 1)
    full = min(room, round(room * one.nearness))
    return [(signs.bar * full, style), (signs.rest * (room - full), "faint"), (signs.wall, style)]


def _share(one: CommandRow, size: int, signs: Signs) -> str:
    text = _percent(one.share)
    bar = signs.share * round(max(0, size - 7) * one.share)
    return f"{bar} {text}" if bar else text


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if 0 < share < 0.0995 else f"{100 * share:.0f} %"


def _name_width(names: Sequence[str], columns: int) -> int:
    return max(7, min(columns // 4, max(map(width, names))))
