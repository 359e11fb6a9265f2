"""The characters that frames are drawn with: each state has a shape of its own, besides its colour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import frozen


@frozen
class Signs:
    """The characters.

    Attributes:
        worker: Of each state of a worker; ``near``: busy and near its time limit.
        level: Of each level of a verdict.
        bar, rest, wall: How much of a time is over, what is left of it, and its end.
        share: How much of all time a command takes.
        heights: Of a sparkline, the lowest first.
        more: The end of a text that is cut.
    """

    worker: Mapping[str, str]
    level: Mapping[str, str]
    bar: str
    rest: str
    wall: str
    share: str
    heights: Sequence[str]
    more: str


UNICODE = Signs(
    worker={"busy": "■", "idle": "□", "near": "▲", "starting": "◇", "leaving": "▽"},
    level={"ok": "●", "note": "■", "bad": "▲"},
    bar="▬",
    rest="·",
    wall="┃",
    share="█",
    heights="▁▂▃▄▅▆▇█",
    more="…",
)
ASCII = Signs(
    worker={"busy": "#", "idle": "o", "near": "!", "starting": "+", "leaving": "-"},
    level={"ok": "*", "note": "-", "bad": "!"},
    bar="=",
    rest=".",
    wall="|",
    share="#",
    heights=".:-=+*#@",
    more="~",
)


def signs_for(encoding: str, environment: Mapping[str, str]) -> Signs:
    """Return the characters that a terminal can show.

    Args:
        encoding: Of what is written to it.
        environment: The variables of the process: its locale may name an encoding.
    """
    named = (environment.get(name) for name in ("LC_ALL", "LC_CTYPE", "LANG"))
    locale = next(filter(None, named), "UTF-8").lower().replace("-", "")
    is_wide = encoding.lower().replace("-", "") == "utf8" and "utf8" in locale
    return UNICODE if is_wide else ASCII
