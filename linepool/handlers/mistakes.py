"""What is wrong with a value that a client sent, on one line. Pure: no I/O, no clock."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

from linepool.near import nearest
from linepool.protocols.base import printable
from linepool.values.words import Expected

MOST = 10
"""How many mistakes of one value are named."""

_MOST_CHARACTERS = 200  # of a text that is not linepool's

Found = list[tuple[str, str]]
"""Mistakes: the path of each within the value (``.items[1].n``, or "" for the value itself), and its text."""


class Mistakes(ValueError):  # noqa: N818 - there may be several
    """Something within a value is wrong.

    Attributes:
        found: What, with at least one mistake.
    """

    def __init__(self, found: Found) -> None:
        super().__init__(found)
        self.found = found

    def described(self, name: str) -> str:
        """Return what is wrong with the parameter ``name``."""
        shown = [f"{name}{_cut(path)} {text}" for path, text in self.found[:MOST]]
        return "; ".join(shown + ["..."] * (len(self.found) > MOST))


def _cut(path: str) -> str:
    return path if len(path) <= _MOST_CHARACTERS else f"{path[:_MOST_CHARACTERS]}..."


def given(value: object) -> str:
    """Return how an error shows a JSON value."""
    if isinstance(value, str):
        return f"'{printable(value.encode('utf-8', 'replace'))}'"
    if isinstance(value, list | tuple):
        return "a list"
    if isinstance(value, dict):
        return "an object"
    return printable(json.dumps(value, default=str).encode())


def found_in(error: BaseException, value: object) -> Found:
    """Return the mistakes that an error of a conversion tells of; no text of Python's own is shown."""
    if isinstance(error, Mistakes):
        return error.found
    if isinstance(error, Expected):
        return [("", f"must be {error}, not {given(value)}")]
    if isinstance(error, RecursionError):
        return [("", "is nested too deeply")]
    text = ""
    if isinstance(error, ValueError) and error.args:  # of a class's own check
        text = " ".join(str(error.args[0]).split())[:_MOST_CHARACTERS]
    return [("", f"is not valid: {text}" if text else "is not valid")]


def at(path: str, found: Found) -> Found:
    """Return mistakes of a part of a value as those of the value."""
    return [(path + rest, text) for rest, text in found]


def missing(name: str) -> tuple[str, str]:
    """Return the mistake of a field that was not given."""
    return f".{name}", "is missing"


def unknown(name: str, known: Iterable[str]) -> tuple[str, str]:
    """Return the mistake of a field that the class does not have."""
    shown = printable(name.encode("utf-8", "replace"))
    if near := nearest(name, [*known]):
        return f".{shown}", f"is unknown; did you mean {near}?"
    return f".{shown}", f"is unknown; the fields are {', '.join(known) or '(none)'}"


def each(
    parts: Iterable[tuple[str, Callable[[Any], Any], Any]], found: Found | None = None
) -> list[Any]:
    """Return converted parts of a value.

    Args:
        parts: The path, the conversion and the value of each.
        found: Mistakes that are known already.

    Raises:
        Mistakes: Some are wrong.
    """
    found = found or []
    made = []
    for path, convert, value in parts:
        try:
            made.append(convert(value))
        except Exception as error:  # noqa: BLE001 - a class's own checks raise anything
            found += at(path, found_in(error, value))
            if len(found) > MOST:
                break
    if found:
        raise Mistakes(found)
    return made
