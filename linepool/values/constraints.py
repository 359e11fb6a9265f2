"""Constraints in annotations: ``Annotated[int, annotated_types.Ge(0)]``. Pure: no I/O, no clock.

A constraint is known by its attributes: ``ge``, ``gt``, ``le``, ``lt``, ``multiple_of``, ``min_length``,
``max_length``, ``pattern``. So those of annotated-types, msgspec (``Meta``) and pydantic (``Field``) work,
and no library is imported for them.
"""

from __future__ import annotations

import math
import numbers
import operator
import re
import types
from collections import deque
from collections.abc import (
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    MutableMapping,
    MutableSequence,
    MutableSet,
    Sequence,
    Set,
)
from typing import Any, get_origin

from attrs import frozen

from linepool.session import Range, Rest, Secret
from linepool.values.annotations import arms, name_of
from linepool.values.scalars import scalar
from linepool.values.words import Expected

_LIBRARIES = {"annotated_types", "msgspec", "pydantic"}
_BOUNDS: dict[str, tuple[Callable[[Any, Any], bool], str, str]] = {
    "gt": (operator.gt, ">", "exclusiveMinimum"),
    "ge": (operator.ge, ">=", "minimum"),
    "lt": (operator.lt, "<", "exclusiveMaximum"),
    "le": (operator.le, "<=", "maximum"),
}
_LENGTHS: dict[str, tuple[Callable[[Any, Any], bool], str]] = {
    "min_length": (operator.ge, "at least"),
    "max_length": (operator.le, "at most"),
}
_CHARACTERS, _ITEMS, _FIELDS = ("characters", "Length"), ("items", "Items"), ("keys", "Properties")
_LENGTH_KEYWORDS: dict[Any, tuple[str, str]] = {  # of bytes, JSON Schema counts their base64
    **dict.fromkeys((str, Rest, Secret), _CHARACTERS),
    bytes: ("bytes", ""),
    **dict.fromkeys((list, tuple, set, frozenset, deque), _ITEMS),
    **dict.fromkeys((Sequence, MutableSequence, Collection, Iterable, Set, MutableSet), _ITEMS),
    **dict.fromkeys((dict, Mapping, MutableMapping), _FIELDS),
}
_NOT_CONSTRAINTS = {  # what else notes of the libraries say
    *("title", "description", "examples", "extra_json_schema", "extra", "documentation", "strict"),
}


@frozen
class Constraint:
    """What a value must meet besides its type.

    Attributes:
        holds: Whether a value of the type meets it; for one that cannot be compared it may raise.
        text: For errors, after the type's name: ``>= 0``.
        usage: For usage texts, after the type's name: ``(>=0)``; "": left out.
        schema: The keywords of JSON Schema.
    """

    holds: Callable[[Any], bool]
    text: str
    usage: str
    schema: Mapping[str, Any]


def constraints(hint: Any, notes: Iterable[Any]) -> list[Constraint]:
    """Return the constraints of ``Annotated[hint, *notes]``.

    Raises:
        TypeError: A constraint is not known, or is not one of such a type.
    """
    return [one for note in notes for one in _of_note(hint, note)]


def bounded(
    convert: Callable[[Any], Any], shown: str, found: Iterable[Constraint]
) -> Callable[[Any], Any]:
    """Return a conversion whose values must meet constraints; None always does, for ``X | None``.

    Args:
        convert: The conversion.
        shown: How texts name its type.
        found: The constraints.
    """
    checks = [(one.holds, f"{shown} {one.text}") for one in found]
    if not checks:
        return convert

    def checked(value: Any) -> Any:
        made = convert(value)
        if made is not None:
            for holds, expected in checks:
                try:
                    met = holds(made)
                except ArithmeticError:  # Decimal refuses to compare NaN
                    met = False
                if not met:
                    raise Expected(expected)
        return made

    return checked


def _of_note(hint: Any, note: Any) -> Iterator[Constraint]:
    if isinstance(note, Range):
        yield _range(hint, note)
        return
    known = {name: getattr(note, name, None) for name in _MAKERS}
    known = {name: value for name, value in known.items() if value is not None}
    if isinstance(note, str | type) or not (known or _is_of_a_library(note)):
        return
    parts = getattr(note, "metadata", None)  # of pydantic's Field
    if parts is None and isinstance(note, Iterable):  # a group
        parts = note
    if parts is not None:
        for part in parts:
            yield from _of_note(hint, part)
        return
    others = {name for name in dir(note) if _says_something(note, name)} - known.keys()
    if others - _NOT_CONSTRAINTS or not (known or others):
        raise TypeError(f"the constraint {note!r} is not supported")
    for name, value in known.items():
        yield _MAKERS[name](hint, name, value)


def _is_of_a_library(note: Any) -> bool:
    return any(kind.__module__.partition(".")[0] in _LIBRARIES for kind in type(note).__mro__)


def _says_something(note: Any, name: str) -> bool:
    value = None if name.startswith("_") else getattr(note, name, None)
    return value is not None and not isinstance(value, types.MethodType | types.BuiltinMethodType)


def _range(hint: Any, note: Range) -> Constraint:
    if not _is_number(hint):
        raise TypeError(f"a Range bounds numbers, not {name_of(hint)}")
    if note.min is not None and note.max is not None and not note.min <= note.max:
        raise TypeError(f"no number is in Range({note.min}, {note.max})")

    def holds(value: Any) -> bool:
        # A NaN compares as false, so it is neither above a minimum nor below a maximum.
        above: bool = note.min is None or value >= note.min
        return above and (note.max is None or bool(value <= note.max))

    bounds = {"minimum": note.min, "maximum": note.max}
    schema = {name: bound for name, bound in bounds.items() if _is_finite(bound)}
    return Constraint(holds, f"in {note}", f"({note})", schema if _is_json_number(hint) else {})


def _bound(hint: Any, name: str, bound: Any) -> Constraint:
    compare, sign, keyword = _BOUNDS[name]
    if isinstance(bound, numbers.Number):
        fits = _is_number(hint)
    else:
        fits = all(isinstance(arm, type) and isinstance(bound, arm) for arm in _arms(hint))
    if not fits:
        raise TypeError(f"{name}={bound!r} cannot bound {name_of(hint)}")
    row = scalar(type(bound))
    written = bound if row is None else row.show(bound)
    schema = {keyword: written} if _is_json_number(hint) and _is_finite(bound) else {}
    return Constraint(
        lambda value: bool(compare(value, bound)), f"{sign} {written}", f"({sign}{written})", schema
    )


def _length(hint: Any, name: str, length: int) -> Constraint:
    compare, words = _LENGTHS[name]
    kinds = {_LENGTH_KEYWORDS.get(get_origin(arm) or arm) for arm in _arms(hint)}
    if None in kinds or len(kinds) != 1:
        raise TypeError(f"{name}={length!r} cannot bound {name_of(hint)}")
    noun, suffix = kinds.pop() or ("", "")
    schema = {f"{name[:3]}{suffix}": length} if suffix else {}
    return Constraint(
        lambda value: compare(len(value), length), f"of {words} {length} {noun}", "", schema
    )


def _multiple(hint: Any, name: str, of: Any) -> Constraint:
    if not _is_number(hint) or not isinstance(of, numbers.Number):
        raise TypeError(f"{name}={of!r} cannot bound {name_of(hint)}")

    def holds(value: Any) -> bool:
        if not isinstance(value, float) and not isinstance(of, float):
            return bool(value % of == 0)
        times = float(value) / float(str(of))  # a remainder of floats is rarely 0
        return math.isfinite(times) and math.isclose(times, round(times), rel_tol=1e-12)

    schema = {"multipleOf": of} if _is_json_number(hint) else {}
    return Constraint(holds, f"and a multiple of {of}", "", schema)


def _pattern(hint: Any, name: str, pattern: Any) -> Constraint:
    text = getattr(pattern, "pattern", pattern)
    if not all(isinstance(arm, type) and issubclass(arm, str) for arm in _arms(hint)):
        raise TypeError(f"{name}={text!r} cannot bound {name_of(hint)}")
    try:
        search = re.compile(pattern).search
    except re.error as error:
        raise TypeError(f"{name}={text!r} is not a regular expression: {error}") from None
    return Constraint(
        lambda value: search(value) is not None, f"that matches {text}", "", {"pattern": text}
    )


_MAKERS: dict[str, Callable[[Any, str, Any], Constraint]] = {
    **dict.fromkeys(_BOUNDS, _bound),
    **dict.fromkeys(_LENGTHS, _length),
    "multiple_of": _multiple,
    "pattern": _pattern,
}


def _arms(hint: Any) -> list[Any]:
    """Return the types that values may be of, but that of None."""
    return [arm for arm in arms(hint) if arm is not type(None)]


def _is_number(hint: Any) -> bool:
    return all(
        isinstance(arm, type) and issubclass(arm, numbers.Number) and not issubclass(arm, bool)
        for arm in _arms(hint)
    )


def _is_json_number(hint: Any) -> bool:
    """Whether JSON writes all values of a type as numbers."""
    rows = [scalar(arm) for arm in _arms(hint)]
    return all(row is not None and row.schema.get("type") in ("integer", "number") for row in rows)


def _is_finite(bound: Any) -> bool:
    return isinstance(bound, int | float) and math.isfinite(bound)
