"""Durations as text: ISO 8601, without years and months. Pure: no I/O, no clock."""

from __future__ import annotations

import re
from datetime import timedelta

_DURATION = (
    r"([+-])?P(?:(\d+)W)?(?:(\d+)D)?(?:T(?=\d)(?:(\d+)H)?(?:(\d+)M)?(?:(\d+)(?:[.,](\d{1,6}))?S)?)?"
)


def duration(text: str) -> timedelta:
    """Return the duration of a text: ``P1DT2H``; raises ValueError."""
    match = re.fullmatch(_DURATION, text, re.ASCII)  # compiled when the first is read
    if match is None or text[-1] in "PT":
        raise ValueError
    sign, *parts, fraction = match.groups()
    weeks, days, hours, minutes, seconds = (int(part or 0) for part in parts)
    micros = int((fraction or "").ljust(6, "0"))
    found = timedelta(days, seconds, micros, 0, minutes, hours, weeks)
    return -found if sign == "-" else found


def shown_duration(value: timedelta) -> str:
    """Return a duration in ISO 8601: ``P1DT2H``, ``PT1.5S``."""
    total = value // timedelta(microseconds=1)
    seconds, micros = divmod(abs(total), 1_000_000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    fraction = f".{micros:06}".rstrip("0") if micros else ""
    units = [
        (f"{days}", "D"),
        (f"{hours}", "H"),
        (f"{minutes}", "M"),
        (f"{seconds}{fraction}", "S"),
    ]
    day, *others = (number + unit if number != "0" else "" for number, unit in units)
    clock = "".join(others)
    if not (day or clock):
        return "PT0S"
    return f"{'-' if total < 0 else ''}P{day}{'T' if clock else ''}{clock}"
