"""The four figures of a frame, with their last minutes. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import frozen

from linepool.operate.tables import brief, number, padded, seconds, width
from linepool.operate.top.history import Point, View
from linepool.operate.top.lines import Line, Part, cells, fitted, sparkline
from linepool.operate.top.signs import Signs

_STEPS_S = (1, 2, 5, 10, 15, 20, 30, 60)  # that a column of a sparkline may cover
_GAP = 2


@frozen
class _Figure:
    label: str
    value: Part
    more: Part
    of: Callable[[Point], float]
    most: float = 0.0  # that the highest bar stands for; 0: that which is highest


def figures(view: View, columns: int, signs: Signs) -> list[Line]:
    """Return the figures side by side: labels, values, sparklines."""
    found = _figures(view)
    size = (columns - (len(found) - 1) * _GAP) // len(found)
    labels = cells([((one.label, "faint"), size) for one in found], _GAP)
    values: Line = []
    for one in found:
        shown = fitted([one.value, ("  ", ""), one.more] if one.more[0] else [one.value], size)
        taken = sum(width(text) for text, _ in values)
        begin = len(values) and (size + _GAP) * found.index(one) - taken
        values += [(" " * begin, ""), *shown]
    bars = cells([((_spark(view, one, size, signs), "bar"), size) for one in found], _GAP)
    return [labels, values, bars]


def figures_as_list(view: View, columns: int) -> list[Line]:
    """Return the figures below each other, for a narrow terminal."""
    found = _figures(view)
    label = max(width(one.label) for one in found)
    return [
        fitted(
            [(padded(one.label, label), "faint"), ("  ", ""), one.value, ("  ", ""), one.more],
            columns,
        )
        for one in found
    ]


def rate(value: float) -> str:
    """Return how many there are per second."""
    return number(round(value)) if value >= 9.95 else f"{value:.1f}".replace(".0", "")


def _figures(view: View) -> list[_Figure]:
    point, tally = view.point, view.look.tally
    is_full = tally["busy"] >= tally["max"]
    grows = "" if tally["total"] == tally["max"] else f"max {tally['max']}"
    late = "bad" if view.verdict.level == "bad" else "note"
    waited = f"for {seconds(view.waiting_s)}" if view.waiting_s else ""
    return [
        _Figure(
            "workers busy",
            (f"{tally['busy']} of {tally['total']}", "note" if is_full else "bold"),
            (grows, "faint"),
            lambda one: one.busy,
            tally["max"],
        ),
        _Figure(
            "waiting",
            (number(point.waiting), late if point.waiting else "bold"),
            (waited, late),
            lambda one: one.waiting,
        ),
        _Figure(
            "requests/s",
            (rate(point.requests), "bold"),
            (f"{rate(point.failed)} failed" if point.failed else "", "bad"),
            lambda one: one.requests,
        ),
        _Figure(
            "p99",
            (brief(point.p99_s) if point.requests else "-", "bold"),
            (f"wait {brief(point.waited_s)}" if point.waited_s else "", "faint"),
            lambda one: one.p99_s,
        ),
    ]


def _spark(view: View, figure: _Figure, columns: int, signs: Signs) -> str:
    """Return the last minutes of a figure, or what is known of them, in so many columns at most."""
    points = view.points
    passed = points[-1].at - points[0].at
    step = next((step for step in _STEPS_S if step * columns >= passed), _STEPS_S[-1])
    values = _steps(points, figure.of, step, columns)
    most = figure.most or max((value for value in values if value is not None), default=0.0)
    return sparkline(values, signs.heights, most).strip()


def _steps(
    points: Sequence[Point], of: Callable[[Point], float], step: float, columns: int
) -> list[float | None]:
    """Return the highest value of each step, the newest last; in one without a point that before it."""
    values: list[float | None] = [None] * columns
    newest = int(points[-1].at // step)
    for point in points:
        place = columns - 1 - newest + int(point.at // step)
        if place >= 0:
            values[place] = max(values[place] or 0.0, of(point))
    for place in range(1, columns):
        if values[place] is None:
            values[place] = values[place - 1]
    return values
