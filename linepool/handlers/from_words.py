"""Converters of words: from a word's bytes to a value of the annotated type. Pure: no I/O, no clock."""

from __future__ import annotations

import inspect
import json
import types
from collections.abc import Mapping
from datetime import date, datetime
from enum import Enum
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from linepool.handlers import converters
from linepool.handlers.converters import Convert, Converter
from linepool.handlers.from_json import structured
from linepool.session import Rest, Secret

_UNDERSCORE = ord("_")


def _to_str(word: bytes) -> str:
    try:
        return word.decode()
    except UnicodeDecodeError:
        raise ValueError("UTF-8 text") from None


def _to_rest(word: bytes) -> Rest:
    return Rest(_to_str(word))


def _to_secret(word: bytes) -> Secret:
    return Secret(_to_str(word))


def _to_bytes(word: bytes) -> bytes:
    return word


def _to_int(word: bytes) -> int:
    try:
        if _UNDERSCORE not in word:
            return int(word)
    except ValueError:
        pass
    raise ValueError("int")


def _to_float(word: bytes) -> float:
    try:
        if _UNDERSCORE not in word:
            return float(word)
    except ValueError:
        pass
    raise ValueError("float")


_TRUE = {b"1", b"true", b"yes", b"on"}
_FALSE = {b"0", b"false", b"no", b"off"}


def to_bool(word: bytes) -> bool:
    """Return a truth value, written as 1 or 0, true or false, yes or no, on or off."""
    lower = word.lower()
    if lower in _TRUE:
        return True
    if lower in _FALSE:
        return False
    raise ValueError("bool (true or false)")


AS_SOURCE: dict[Convert, list[str]] = {
    _to_str: ["{0} = {0}.decode()"],
    _to_bytes: [],
    _to_int: [f"if {_UNDERSCORE} in {{0}}: raise ValueError", "{0} = int({0})"],
    _to_float: [f"if {_UNDERSCORE} in {{0}}: raise ValueError", "{0} = float({0})"],
}
"""The same conversions as statements on a variable, for compiled calls; their errors have no text."""

KINDS: dict[Convert, bytes] = {
    _to_str: b"s",
    _to_bytes: b"b",
    _to_int: b"i",
    _to_float: b"f",
    to_bool: b"o",
}
"""The conversions that the compiled core has too, by the letter that it knows them by."""

_SIMPLE: dict[Any, Converter] = {
    str: (_to_str, "str"),
    Secret: (_to_secret, "str"),
    bytes: (_to_bytes, "bytes"),
    int: (_to_int, "int"),
    float: (_to_float, "float"),
    bool: (to_bool, "bool"),
    Rest: (_to_rest, "str"),
    Any: (_to_str, "str"),
    object: (_to_str, "str"),
    inspect.Parameter.empty: (_to_str, "str"),
}
_NONE: Mapping[Any, Convert] = {}
_PATHS = {"Path", "PurePath", "PosixPath", "PurePosixPath"}


def word_converter(hint: Any, own: Mapping[Any, Convert] = _NONE) -> Converter:
    """Return the converter for an annotation.

    Args:
        hint: The annotation.
        own: The protocol's own converters for simple types.

    Raises:
        TypeError: A word cannot be converted to that type.
    """
    if hint in _SIMPLE:
        convert, shown = _SIMPLE[hint]
        return own.get(hint, convert), shown
    origin = get_origin(hint)
    if origin is Annotated:
        inner, *notes = get_args(hint)
        return converters.within(word_converter(inner, own), inner, notes)
    if origin is Literal:
        return _choice({_written(value): value for value in get_args(hint)})
    if origin in (Union, types.UnionType):
        return converters.union([word_converter(arm, own) for arm in _arms(hint)])
    if isinstance(hint, type):
        if issubclass(hint, Enum):
            names = {member.name: member for member in hint}
            return _choice({**{str(member.value): member for member in hint}, **names}, names)
        if issubclass(hint, date):
            return _iso(hint)
        if converters.is_written_as_text(hint) or _is_path(hint):
            kind: Any = hint
            make = kind if _is_path(hint) else converters.from_text(kind)
            return converters.made_by(lambda word: make(_to_str(word)), kind.__name__)
    return structured(hint, json.loads, "JSON of ")


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


def _written(literal: object) -> str:
    return literal.decode() if isinstance(literal, bytes) else str(literal)


class _Choices(dict[bytes, Any]):
    """Values by word; where no word is written exactly so, case is ignored."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        super().__init__((name.encode(), value) for name, value in values.items())
        self._folded = {word.upper(): value for word, value in reversed(self.items())}

    def __missing__(self, word: bytes) -> Any:
        return self._folded[word.upper()]


def _choice(values: Mapping[str, Any], shown: Mapping[str, Any] | None = None) -> Converter:
    return converters.choice(_Choices(values).__getitem__, shown or values)


def _iso(kind: type[date]) -> Converter:
    example = "2026-01-31T12:00:00" if issubclass(kind, datetime) else "2026-01-31"
    shown = kind.__name__
    make = converters.from_text(kind.fromisoformat)
    return converters.made_by(lambda word: make(_to_str(word)), shown, f"{shown} such as {example}")


def _is_path(kind: type) -> bool:
    return kind.__module__.partition(".")[0] == "pathlib" and kind.__name__ in _PATHS
