"""Converters: from a word's bytes to a value of the annotated type. Pure: no I/O, no clock.

A converter raises ValueError with what the word must be ("int", "red or green"); whoever calls it
puts the parameter's name before it and the word behind it.
"""

from __future__ import annotations

import inspect
import json
import types
from collections.abc import Callable, Mapping
from datetime import date, datetime
from enum import Enum
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from linepool.session import Range, Rest

Convert = Callable[[bytes], Any]
_UNDERSCORE = ord("_")


def _to_str(word: bytes) -> str:
    try:
        return word.decode()
    except UnicodeDecodeError:
        raise ValueError("UTF-8 text") from None


def to_rest(word: bytes) -> Rest:
    """Return the rest of a line as text."""
    return Rest(_to_str(word))


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
"""The same as statements about a variable, but for the text of the ValueError; for ``calls``."""

_SIMPLE: dict[Any, tuple[Convert, str]] = {
    str: (_to_str, "str"),
    bytes: (_to_bytes, "bytes"),
    int: (_to_int, "int"),
    float: (_to_float, "float"),
    bool: (to_bool, "bool"),
    Any: (_to_str, "str"),
    object: (_to_str, "str"),
    inspect.Parameter.empty: (_to_str, "str"),
}
# By name, so that the module is imported by the user who writes the annotation, not by us.
_NONE: Mapping[Any, Convert] = {}
_FROM_TEXT = {"decimal.Decimal", "uuid.UUID", "fractions.Fraction"}
_PATHS = {"Path", "PurePath", "PosixPath", "PurePosixPath"}


def converter(hint: Any, own: Mapping[Any, Convert] = _NONE) -> tuple[Convert, str]:
    """Return the converter for an annotation, and how the usage text names it.

    Args:
        hint: The annotation.
        own: The protocol's own converters for simple types.

    Raises:
        TypeError: There is no conversion from a word to such a type.
    """
    if hint in _SIMPLE:
        convert, shown = _SIMPLE[hint]
        return own.get(hint, convert), shown
    origin = get_origin(hint)
    if origin is Annotated:
        return _annotated(own, *get_args(hint))
    if origin is Literal:
        return _choice({_shown_literal(value): value for value in get_args(hint)})
    if origin in (Union, types.UnionType):
        return _union([arm for arm in get_args(hint) if arm is not type(None)], own)
    if isinstance(hint, type):
        if issubclass(hint, Enum):
            names = {member.name: member for member in hint}
            return _choice({**{str(member.value): member for member in hint}, **names}, names=names)
        if issubclass(hint, date):
            return _iso(hint)
        if f"{hint.__module__}.{hint.__qualname__}" in _FROM_TEXT or (
            hint.__module__.partition(".")[0] == "pathlib" and hint.__name__ in _PATHS
        ):
            return _from_text(hint)
    return _structured(hint)


def allows_none(hint: Any) -> bool:
    """Whether an annotation is ``X | None``: then the word may be left out."""
    if get_origin(hint) is Annotated:
        return allows_none(get_args(hint)[0])
    return get_origin(hint) in (Union, types.UnionType) and type(None) in get_args(hint)


def _shown_literal(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _annotated(own: Mapping[Any, Convert], hint: Any, *notes: Any) -> tuple[Convert, str]:
    convert, shown = converter(hint, own)
    for bounds in notes:
        if isinstance(bounds, Range):
            if hint in (str, bytes, bool):
                raise TypeError(f"a Range bounds numbers, not {shown}")
            convert, shown = _bounded(convert, shown, bounds), f"{shown}({bounds})"
    return convert, shown


def _bounded(convert: Convert, shown: str, bounds: Range) -> Convert:
    def bounded(word: bytes) -> Any:
        value = convert(word)
        try:
            too_low = bounds.min is not None and not value >= bounds.min
            too_high = bounds.max is not None and not value <= bounds.max
        except ArithmeticError:  # decimal refuses to compare NaN
            too_low = too_high = True
        if too_low or too_high:
            raise ValueError(f"{shown} in {bounds}")
        return value

    return bounded


def _choice(
    values: Mapping[str, Any], names: Mapping[str, Any] | None = None
) -> tuple[Convert, str]:
    table = {name.encode(): value for name, value in values.items()}
    folded = {name.upper(): value for name, value in reversed(table.items())}
    shown = "|".join(names or values)

    def choose(word: bytes) -> Any:
        if word in table:
            return table[word]
        try:
            return folded[word.upper()]
        except KeyError:
            raise ValueError(shown.replace("|", " or ")) from None

    return choose, shown


def _union(arms: list[Any], own: Mapping[Any, Convert]) -> tuple[Convert, str]:
    converters = [converter(arm, own) for arm in arms]
    if len(converters) == 1:
        return converters[0]
    shown = "|".join(name for _, name in converters)

    def first_that_fits(word: bytes) -> Any:
        for convert, _ in converters:
            try:
                return convert(word)
            except ValueError:
                continue
        raise ValueError(shown.replace("|", " or "))

    return first_that_fits, shown


def _iso(kind: type[date]) -> tuple[Convert, str]:
    example = "2026-01-31T12:00:00" if issubclass(kind, datetime) else "2026-01-31"
    shown = kind.__name__

    def from_iso(word: bytes) -> date:
        try:
            return kind.fromisoformat(_to_str(word))
        except ValueError:
            raise ValueError(f"{shown} such as {example}") from None

    return from_iso, shown


def _from_text(kind: type) -> tuple[Convert, str]:
    shown = kind.__name__

    def from_text(word: bytes) -> Any:
        try:
            return kind(_to_str(word))
        except (ValueError, ArithmeticError):  # decimal's own error is an ArithmeticError
            raise ValueError(shown) from None

    return from_text, shown


def _structured(hint: Any) -> tuple[Convert, str]:
    """Return the converter for a type that only cattrs knows: the word is JSON.

    Raises:
        TypeError: cattrs does not know it either, or is not installed.
    """
    name = hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")
    try:
        import cattrs  # noqa: PLC0415 - heavy, and wanted by few
        from cattrs.preconf.json import make_converter  # noqa: PLC0415
    except ImportError:
        raise TypeError(
            f"a word cannot become {name}; for such types install cattrs (pip install linepool[cattrs])"
        ) from None
    structurer = make_converter()
    try:
        structure = structurer.get_structure_hook(hint)
    except cattrs.errors.StructureHandlerNotFoundError:
        raise TypeError(f"a word cannot become {name}, and cattrs cannot structure it") from None

    def from_json(word: bytes) -> Any:
        try:
            return structure(json.loads(word), hint)
        except json.JSONDecodeError:
            raise ValueError(f"JSON of {name}") from None
        except Exception as error:  # noqa: BLE001 - cattrs raises what the type's own checks raise
            what = "; ".join(cattrs.transform_error(error, path="value"))
            raise ValueError(f"JSON of {name} ({what})") from None

    return from_json, name
