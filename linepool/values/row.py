"""A row of the table of scalar types. Pure: no I/O, no clock."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from attrs import frozen

from linepool.values.words import Expected


@frozen
class Scalar:
    """One row: how the values of a type are written.

    Attributes:
        name: The type's name in usage texts and errors: ``Decimal``, ``red|green``.
        word: From a word's bytes to the value; raises Expected.
        value: From a JSON value, strictly; raises Expected likewise.
        show: From a value to its JSON value: a str, int, float, bool or None.
        schema: The JSON Schema of its JSON form.
        example: A word as a client writes it, for errors; "": the name says enough.
    """

    name: str
    word: Callable[[bytes], Any]
    value: Callable[[Any], Any]
    show: Callable[[Any], Any]
    schema: Mapping[str, Any]
    example: str = ""


def text_row(
    kind: Any,
    parse: Callable[[str], Any],
    show: Callable[[Any], str] = str,
    *,
    name: str = "",
    example: str = "",
    schema: Mapping[str, Any] | None = None,
    numbers: tuple[type, ...] = (),
) -> Scalar:
    """Return the row of a type whose JSON form is a string.

    Args:
        kind: The type.
        parse: From the text to the value; its ValueError and ArithmeticError mean a wrong text.
        show: From a value to the text.
        name: The type's name, if it is not that of the class.
        example: Of the text.
        schema: Further keywords of the JSON Schema.
        numbers: Types of JSON numbers that are taken too, by their text.
    """
    name = name or kind.__name__
    expected = f"{name} such as {example}" if example else name
    taken = (str, *numbers)

    def value(given: Any) -> Any:
        if type(given) not in taken:
            if type(given) is kind:  # a date of TOML
                return given
            raise Expected(expected)
        try:
            return parse(given if type(given) is str else str(given))
        except (ValueError, ArithmeticError):
            raise Expected(expected) from None

    def word(data: bytes) -> Any:
        try:
            return parse(data.decode())
        except (ValueError, ArithmeticError):
            raise Expected(expected) from None

    return Scalar(name, word, value, show, {"type": "string", **(schema or {})}, example)
