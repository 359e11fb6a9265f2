"""A view as the lines of a frame. Pure: what a terminal shows is decided here, and nothing else is."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Mapping, Sequence
from typing import Literal

from attrs import evolve, frozen

from linepool.operate.shown_at_terminal import clean
from linepool.operate.tables import seconds
from linepool.operate.top import sections
from linepool.operate.top.figures import figures, figures_as_list
from linepool.operate.top.history import View
from linepool.operate.top.lines import Line, fitted, spread
from linepool.operate.top.signs import Signs

Page = Literal["all", "commands", "workers", "incidents", "stacks", "help"]
_PAGES: Mapping[str, Page] = {
    "c": "commands",
    "w": "workers",
    "i": "incidents",
    "k": "stacks",
    "enter": "stacks",
    "?": "help",
    "escape": "all",
}
_STEPS = {"up": -1, "down": 1, "page up": -10, "page down": 10}
_MOST_INCIDENTS = 3  # on the page that has all
_LEAST = 8  # rows of requests and commands that incidents do not take
_SPACIOUS = 22  # rows from which parts have a blank line between them
_KEYS = "q quit  c commands  w workers  i incidents  k stacks  space pause  ? help"
_FEW_KEYS = "q quit  c w i k  ? help"
_HELP = """\
q         quit, as ctrl-C does
c         all commands; c again: back. Likewise:
w         all requests that run
i         all incidents, with their stacks
k, enter  what each worker does now, with its stack
s         sort commands by another column: time, rate, p99, failed
t         sort commands by time
a         commands since the start of the server, or those of the last minute
space     pause, and go on
arrows    and page up, page down: the rest of a page that is longer than the terminal
?         this page; escape: back

Figures are of the last 10 seconds, their bars of the last 5 minutes. The highest value has the highest bar; \
with workers, it is as many as the pool may have. p99: 99 of 100 requests took at most that long in their \
handlers; wait: 99 of 100 had waited at most that long for a worker."""


@frozen
class Choice:
    """What was chosen with the keys.

    Attributes:
        page: What is shown.
        order: By what commands are sorted.
        of_all_time: Commands are those since the start of the server.
        offset: How many lines of the page are above the terminal.
        paused: The view stays as it is.
    """

    page: Page = "all"
    order: str = "time"
    of_all_time: bool = False
    offset: int = 0
    paused: bool = False


def frame(
    view: View,
    size: tuple[int, int],
    signs: Signs,
    choice: Choice | None = None,
    stacks: Sequence[Line] = (),
    trouble: str = "",
) -> list[Line]:
    """Return the lines of a frame.

    Args:
        view: What is to be shown.
        size: Columns and rows of the terminal.
        signs: The characters for it.
        choice: What was chosen with the keys.
        stacks: The lines of the page of that name.
        trouble: Why there is no newer view; "": there is.
    """
    columns, rows = size
    choice = choice or Choice()
    lines = _head(
        view, columns, signs, 2 if rows >= _SPACIOUS else 1, trouble, paused=choice.paused
    )
    is_narrow = columns < sections.NARROW
    blank: list[Line] = [[]] if rows >= _SPACIOUS else []
    if choice.page not in ("stacks", "help"):
        lines += blank
        lines += figures_as_list(view, columns) if is_narrow else figures(view, columns, signs)
    room = max(0, rows - len(lines) - 1)
    lines += _page(view, columns, room, signs, choice, stacks, blank)
    del lines[max(0, rows - 1) :]
    lines += [[]] * (rows - 1 - len(lines))
    lines.append([(_FEW_KEYS if columns < len(_KEYS) else _KEYS, "faint")])
    return [_with(fitted(line, columns), signs) for line in lines[:rows]]


def snapshot(view: View, size: tuple[int, int], signs: Signs) -> list[Line]:
    """Return one frame that is not for a screen: as long as it needs to be, without the keys."""
    columns, _ = size
    lines = [*_head(view, columns, signs, 9), []]
    if columns < sections.NARROW:
        lines += figures_as_list(view, columns)
    else:
        lines += figures(view, columns, signs)[:-1]  # two looks make no line
    lines += [[], *sections.pool(view, columns, 9999, signs)]
    lines += sections.lanes(view, columns, 9999, signs)
    lines += [[], *sections.commands(view, columns, 9999, signs)]
    if shown := sections.incidents(view, _MOST_INCIDENTS, signs):
        lines += [[], *shown]
    return [_with(fitted(line, columns), signs) for line in lines]


def as_one_line(view: View) -> str:
    """Return the figures as a line for a log: facts as name=value, with seconds as their unit."""
    point, tally = view.point, view.look.tally
    facts: dict[str, object] = {
        "name": view.look.name,
        "state": view.look.phase,
        "level": view.verdict.level,
        "busy": tally["busy"],
        "workers": tally["total"],
        "max": tally["max"],
        "waiting": point.waiting,
        "waiting_s": round(view.waiting_s, 1),
        "requests_per_s": round(point.requests, 1),
        "failed_per_s": round(point.failed, 1),
        "p50_s": float(f"{point.p50_s:.3g}"),
        "p99_s": float(f"{point.p99_s:.3g}"),
        "waited_p99_s": float(f"{point.waited_s:.3g}"),
        "longest_s": round(max((one.ran_s for one in view.running), default=0.0), 1),
    }
    shown = " ".join(f"{name}={fact}" for name, fact in facts.items())
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(view.look.wall))
    return f"{at} {shown} verdict={clean(view.verdict.sentence)!r}"


def _head(
    view: View, columns: int, signs: Signs, most: int, trouble: str = "", *, paused: bool = False
) -> list[Line]:
    """Return which server it is, and how it is; what the verdict adds takes so many lines at most."""
    look = view.look
    shown = time.strftime("%H:%M:%S UTC", time.gmtime(look.wall))
    facts = f"  linepool {look.version}  up {seconds(look.at)}  {', '.join(look.addresses)}"
    right: Line = [("paused ", "note")] if paused else []
    lines = [spread([(look.name, "bold"), (facts, "")], [*right, (shown, "faint")], columns)]
    level, sentence, more = view.verdict.level, view.verdict.sentence, view.verdict.more
    if trouble:
        level = "bad"
        sentence = f"No answer since {shown}; trying again."
        more = f"What is shown is as of then. {trouble}"
    banner = f"{signs.level[level]} {clean(sentence)}"
    style = f"banner {level}" if level != "ok" else "good"
    lines.append([(f"{banner:<{columns}}" if level != "ok" else banner, style)])
    style = level if level != "ok" else "faint"
    wrapped = textwrap.wrap(clean(more), max(10, columns - 2)) or [""]
    if len(wrapped) > most:
        wrapped = [*wrapped[: most - 1], " ".join(wrapped[most - 1 :])]  # which is cut
    lines += ([(f"  {text}", style)] for text in wrapped)
    return [*lines, [(f"  {look.waiters}", "")]] if look.waiters else lines


def _page(
    view: View,
    columns: int,
    room: int,
    signs: Signs,
    choice: Choice,
    stacks: Sequence[Line],
    blank: list[Line],
) -> list[Line]:
    """Return what is below the figures."""
    most = 9999
    if choice.page == "all":
        return _all(view, columns, room, signs, choice, blank)
    if choice.page == "commands":
        found = sections.commands(view, columns, most, signs, choice.order)
    elif choice.page == "workers":
        found = [
            *sections.pool(view, columns, most, signs),
            *sections.lanes(view, columns, most, signs),
        ]
    elif choice.page == "incidents":
        found = sections.incidents_with_stacks(view, columns, signs)
    else:
        found = list(stacks) if choice.page == "stacks" else _help(columns)
    space = max(1, room - len(blank))
    offset = min(choice.offset, max(0, len(found) - space))
    shown = found[offset : offset + space]
    below = len(found) - offset - len(shown)
    if (offset or below) and shown:
        place = f"{offset + 1} to {offset + len(shown)} of {len(found)} lines"
        shown = [*shown[:-1], [(f"{place}: arrows, page up, page down", "faint")]]
    return [*blank, *shown]


def _all(
    view: View, columns: int, room: int, signs: Signs, choice: Choice, blank: list[Line]
) -> list[Line]:
    """Return all parts, each with as many lines as there is room for: incidents first lose theirs."""
    gap = len(blank)
    left = room - gap
    if left <= 0:
        return []
    cells = sections.pool(view, columns, 2 if left > 12 else 1, signs)
    left -= len(cells)
    wanted = len(view.running) + 1 if view.running else 1
    listed = len(view.commands) + 1 if view.commands else 1
    spare = left - 2 * gap - min(_LEAST, wanted + listed)
    last = max(0, min(_MOST_INCIDENTS, len(view.incidents), spare))
    left -= last + gap + (gap if last else 0)
    half = max(left // 2, left - listed)
    lanes = sections.lanes(view, columns, max(0, min(wanted, half)), signs)
    table = sections.commands(view, columns, max(0, left - len(lanes)), signs, choice.order)
    lines = [*blank, *cells, *lanes, *blank, *table]
    if last:
        lines += [*blank, *sections.incidents(view, last, signs)]
    return lines


def _help(columns: int) -> list[Line]:
    lines: list[Line] = []
    for text in _HELP.split("\n"):
        indent = "          " if "  " in text else ""
        wrapped = textwrap.wrap(text, columns, subsequent_indent=indent) or [""]
        lines += [[(part, "")] for part in wrapped]
    return lines


def chosen(choice: Choice, key: str) -> Choice:
    """Return what is chosen after a key."""
    if key in _PAGES:
        page = _PAGES[key]
        return evolve(choice, page="all" if choice.page == page else page, offset=0)
    if key in _STEPS:
        return evolve(choice, offset=max(0, choice.offset + _STEPS[key]))
    if key == "s":
        order = sections.ORDERS[(sections.ORDERS.index(choice.order) + 1) % len(sections.ORDERS)]
        return evolve(choice, order=order)
    if key == "t":
        return evolve(choice, order=sections.ORDERS[0])
    if key == "a":
        return evolve(choice, of_all_time=not choice.of_all_time)
    if key == " ":
        return evolve(choice, paused=not choice.paused)
    return choice


def _with(line: Line, signs: Signs) -> Line:
    """Return a line whose texts that were cut end with the sign that the terminal can show."""
    return [(text.replace("…", signs.more), style) for text, style in line]
