"""Converters of words: from a word's bytes to a value of the annotated type. Pure: no I/O, no clock."""

from __future__ import annotations

import inspect
import json
import types
from collections.abc import Mapping
from typing import Annotated, Any, Union, get_args, get_origin

from linepool.handlers import converters
from linepool.handlers.converters import Convert, Converter
from linepool.handlers.mistakes import Mistakes
from linepool.handlers.structured import DEFAULT, Structures
from linepool.session import Rest
from linepool.values.annotations import name_of
from linepool.values.constraints import bounded, constraints
from linepool.values.json_text import load_library, loads
from linepool.values.words import (
    word_to_bool,
    word_to_bytes,
    word_to_float,
    word_to_int,
    word_to_str,
)

_UNDERSCORE = ord("_")

AS_SOURCE: dict[Convert, list[str]] = {
    word_to_str: ["{0} = {0}.decode()"],
    word_to_bytes: [],
    word_to_int: [f"if {_UNDERSCORE} in {{0}}: raise ValueError", "{0} = int({0})"],
    word_to_float: [f"if {_UNDERSCORE} in {{0}}: raise ValueError", "{0} = float({0})"],
}
"""The same conversions as statements on a variable, for compiled calls; their errors have no text."""

KINDS: dict[Convert, bytes] = {
    word_to_str: b"s",
    word_to_bytes: b"b",
    word_to_int: b"i",
    word_to_float: b"f",
    word_to_bool: b"o",
}
"""The conversions that the compiled core has too, by the letter that it knows them by."""

_ANY = (Any, object, inspect.Parameter.empty)
_JSON = (b"{", b"[", b'"')  # how text begins that is JSON, where it need not be
_NONE: Mapping[Any, Convert] = {}


def word_converter(
    hint: Any, own: Mapping[Any, Convert] = _NONE, structures: Structures = DEFAULT
) -> Converter:
    """Return the converter for an annotation.

    Args:
        hint: The annotation.
        own: The protocol's own converters for simple types.
        structures: Makes values of types that are not scalars, of JSON.

    Raises:
        TypeError: A word cannot be converted to that type.
    """
    if hint in _ANY:
        return word_to_str, "str"
    if (row := structures.scalar(hint)) is not None:
        return own.get(hint, row.word), row.name
    if get_origin(hint) is Annotated:
        inner, *notes = get_args(hint)
        convert, name = word_converter(inner, own, structures)
        found = constraints(inner, notes)
        return bounded(convert, name, found), converters.bounded_name(name, found)
    if get_origin(hint) in (Union, types.UnionType):
        arms = _arms(hint)
        if len(arms) == 1 or any(structures.scalar(arm) is not None for arm in arms):
            return converters.union([word_converter(arm, own, structures) for arm in arms])
    if hasattr(hint, "__supertype__"):
        return word_converter(hint.__supertype__, own, structures)
    return _json_converter(hint, structures)


def _json_converter(hint: Any, structures: Structures) -> Converter:
    """Return the converter of words that are JSON."""
    name = name_of(hint)
    convert = of_json(structures.conversion(hint), name)
    if not structures.has_own(hint):
        return convert, name
    structure = structures.conversion(hint)
    return lambda word: convert(word) if word[:1] in _JSON else structure(word_to_str(word)), name


def of_json(structure: Convert, name: str) -> Convert:
    """Return the conversion of JSON text; it raises Mistakes.

    Args:
        structure: The conversion of the text's value.
        name: How texts name its type.
    """
    load_library()

    def from_json(text: bytes) -> Any:
        try:
            value = loads(text)
        except json.JSONDecodeError as error:
            what = f"; {error.msg.removesuffix(' delimiter')} at character {error.pos + 1}"
        except ValueError as error:
            what = f"; {error}"
        else:
            return structure(value)
        raise Mistakes([("", f"must be JSON of {name}{what}")])

    return from_json


def allows_none(hint: Any) -> bool:
    """Whether an annotation is ``X | None``, so that its word may be left out."""
    if get_origin(hint) is Annotated:
        return allows_none(get_args(hint)[0])
    return get_origin(hint) in (Union, types.UnionType) and type(None) in get_args(hint)


def _arms(hint: Any) -> list[Any]:
    """Return the types of a union, but None."""
    arms = [arm for arm in get_args(hint) if arm is not type(None)]
    if Rest in arms and len(arms) > 1:
        raise TypeError("the rest of the line is Rest or Rest | None, without other types")
    return arms


def is_rest(hint: Any) -> bool:
    """Whether an annotation is ``Rest``, or ``Rest | None``."""
    if get_origin(hint) is Annotated:
        return is_rest(get_args(hint)[0])
    if get_origin(hint) in (Union, types.UnionType):
        return {*get_args(hint)} == {Rest, type(None)}
    return hint is Rest
