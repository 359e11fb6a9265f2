"""The syntax of settings: from text, or from a value of the file, to the setting's value. Pure.

Each parser raises ValueError with what the value must be.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from linepool.address import parse_address

INHERIT = -1
"""A setting is left as it is in the process that starts the server; as text, ``inherit``."""

_MAX_SECONDS = 1e9


def number(
    low: float, high: float, kind: Callable[[Any], Any], what: str
) -> Callable[[object], Any]:
    """Return a parser of numbers from ``low`` to ``high``."""

    def parse(value: object) -> Any:
        try:
            parsed = kind(str(value))
        except ValueError:
            raise ValueError(what) from None
        if isinstance(value, bool) or not low <= parsed <= high:
            most = f" and at most {exact(high)}" if high < math.inf else ""
            raise ValueError(f"{what}, at least {exact(low)}{most}")
        return parsed

    return parse


def exact(value: float) -> str:
    """Return a number as text, a whole one without a fraction."""
    return str(int(value) if value == int(value) else value)


def seconds(low: float = 0.0) -> Callable[[object], Any]:
    """Return a parser of a time in seconds."""
    return number(low, _MAX_SECONDS, float, "a number of seconds")


def whole(low: int, high: float = math.inf) -> Callable[[object], Any]:
    """Return a parser of whole numbers."""
    return number(low, high, int, "a whole number")


def one_of(*choices: str) -> Callable[[object], str]:
    """Return a parser of one of some words."""

    def parse(value: object) -> str:
        if str(value).lower() in choices:
            return str(value).lower()
        raise ValueError(" or ".join(choices))

    return parse


def flag(value: object) -> bool:
    """Parse on or off."""
    if str(value).lower() in ("on", "true", "yes", "1"):
        return True
    if str(value).lower() in ("off", "false", "no", "0"):
        return False
    raise ValueError("on or off")


def texts(value: object) -> tuple[str, ...]:
    """Parse a list of strings, or one string of them."""
    if isinstance(value, str):
        return tuple(value.replace(",", " ").split())
    if isinstance(value, Sequence) and all(isinstance(item, str) for item in value):
        return tuple(value)
    raise ValueError("a string or a list of strings")


def patterns(value: object) -> tuple[str, ...]:
    """Parse patterns of paths."""
    found = texts(value)
    if any("\0" in pattern for pattern in found):
        raise ValueError("paths, which have no NUL in them")
    return found


def addresses(value: object) -> tuple[str, ...]:
    """Parse addresses to listen on."""
    found = texts(value)
    if not found:
        raise ValueError("at least one address")
    for address in found:
        parse_address(address)
        if found.count(address) > 1 and not address.endswith(":0"):
            raise ValueError(f"distinct addresses; {address} is given twice")
    return found


def text(value: object) -> str:
    """Parse a string."""
    if isinstance(value, str):
        return value
    raise ValueError("a string")


def path(value: object) -> str:
    """Parse the path of a file or directory."""
    found = text(value)
    if "\0" in found:
        raise ValueError("a path")
    return found


def name(value: object) -> str:
    """Parse the name or the number of a user or a group."""
    if isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)):
        return str(value)
    raise ValueError("a name or a number")


def control(value: object) -> str:
    """Parse the path of the control socket."""
    path = text(value)
    if path.startswith("@") or "\0" in path:
        raise ValueError("a path; every local user may connect to an abstract socket")
    return path


def mode(value: object) -> int:
    """Parse the mode of a file."""
    return _octal(value, "a file mode in octal, such as 660")


def umask(value: object) -> int:
    """Parse a mask of permissions."""
    return _octal(value, "a mask in octal, such as 027")


def _octal(value: object, what: str) -> int:
    try:
        # An integer is the mode itself; only a string is read as octal digits.
        parsed = value if isinstance(value, int) else int(str(value), 8)
    except ValueError:
        parsed = -1
    if not 0 <= parsed <= 0o777:
        raise ValueError(what)
    return parsed


def or_inherit(parse: Callable[[object], Any]) -> Callable[[object], Any]:
    """Return a parser that also knows the word ``inherit``."""

    def parse_either(value: object) -> Any:
        if value == INHERIT or str(value).lower() == "inherit":
            return INHERIT
        try:
            return parse(value)
        except ValueError as error:
            raise ValueError(f"inherit, or {error}") from None

    return parse_either
