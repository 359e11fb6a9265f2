"""Converters of JSON values: to a value of the annotated type. Pure: no I/O, no clock.

For protocols whose arguments already have types. They are strict: a number is not a string, a bool is
not a number.
"""

from __future__ import annotations

import inspect
import types
from datetime import date, datetime
from enum import Enum
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from linepool.handlers import converters
from linepool.handlers.converters import Convert, Converter, unchanged
from linepool.session import Rest, Secret


def json_converter(hint: Any) -> Converter:
    """Return the converter for an annotation.

    Raises:
        TypeError: A JSON value cannot be converted to that type.
    """
    if hint in (Any, object, inspect.Parameter.empty):
        return unchanged, "any"
    if hint in _PLAIN:
        return _plain(*_PLAIN[hint])
    origin = get_origin(hint)
    if origin is Annotated:
        inner, *notes = get_args(hint)
        return converters.within(json_converter(inner), inner, notes)
    if origin is Literal:
        return _choice({value: value for value in get_args(hint)})
    if origin in (Union, types.UnionType):
        return converters.union([json_converter(arm) for arm in get_args(hint)])
    if inspect.isclass(hint):
        if issubclass(hint, Enum):
            members = {member.value: member for member in hint}
            return _choice({**members, **{member.name: member for member in hint}}, members)
        if issubclass(hint, date):
            return _made_from(converters.from_text(hint.fromisoformat), hint.__name__, (str,))
        if converters.is_written_as_text(hint):
            kind: Any = hint
            make = converters.from_text(kind)
            return _made_from(lambda value: make(str(value)), kind.__name__, (str, int, float))
    return structured(hint)


def structured(hint: Any, load: Convert = unchanged, prefix: str = "") -> Converter:
    """Return the converter for a type that only cattrs can structure; see ``converters.structured``."""
    strict: dict[Any, Convert] = {kind: json_converter(kind)[0] for kind in _STRICT}
    return converters.structured(hint, strict, load, prefix)


_PLAIN: dict[Any, tuple[str, type, Convert]] = {
    int: ("int", int, unchanged),
    float: ("float", float, float),
    str: ("str", str, unchanged),
    Rest: ("str", str, Rest),
    Secret: ("str", str, Secret),
    bytes: ("str", str, str.encode),
    bool: ("bool", bool, unchanged),
    list: ("list", list, unchanged),
    dict: ("dict", dict, unchanged),
    type(None): ("null", type(None), unchanged),
}


_STRICT = (int, float, str, bool, date, datetime)  # within a structured type too


def _plain(shown: str, kind: type, make: Convert) -> Converter:
    kinds = (int, float) if kind is float else (kind,)

    def convert(value: Any) -> Any:
        if type(value) not in kinds:  # not isinstance: a bool is not a number here
            raise ValueError(shown)
        try:
            return make(value)
        except (OverflowError, UnicodeEncodeError):
            raise ValueError(shown) from None

    return convert, shown


def _choice(values: dict[Any, Any], shown: dict[Any, Any] | None = None) -> Converter:
    """Return the converter for some values; 1, 1.0 and true are different values here."""
    table = {(type(known), known): value for known, value in values.items()}
    return converters.choice(lambda value: table[type(value), value], shown or values)


def _made_from(make: Convert, shown: str, kinds: tuple[type, ...]) -> Converter:
    def checked(value: Any) -> Any:
        if type(value) not in kinds:
            raise ValueError(shown)
        return make(value)

    return converters.made_by(checked, shown)
