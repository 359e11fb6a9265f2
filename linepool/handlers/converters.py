"""What converters of words and converters of JSON values share. Pure: no I/O, no clock.

A converter turns one value of a request into a value of the annotated type. It raises ValueError
with what the value must be ("int", "red or green"), to which the caller adds the parameter's name and
the value that was sent; or Mistakes, for what is wrong within a value.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from linepool.values.constraints import Constraint

Convert = Callable[[Any], Any]
Converter = tuple[Convert, str]
"""The conversion, and the name of its type in usage texts: ``int``, ``red|green``."""


def union(arms: Sequence[Converter]) -> Converter:
    """Return the converter that tries others in turn."""
    if len(arms) == 1:
        return arms[0]
    shown = "|".join(name for _, name in arms)
    expected = shown.replace("|", " or ")

    def first_that_fits(value: Any) -> Any:
        for convert, _ in arms:
            try:
                return convert(value)
            except ValueError:
                continue
        raise ValueError(expected)

    return first_that_fits, shown


def bounded_name(name: str, found: Sequence[Constraint]) -> str:
    """Return the name of a constrained type in usage texts: ``int(1..100)``."""
    return name + "".join(one.usage for one in found)
