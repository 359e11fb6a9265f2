"""Any value that a handler may return, as values of JSON. Pure: no I/O, no clock."""

from __future__ import annotations

import dataclasses
import math
import numbers
import operator
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import attrs

from linepool.values.scalars import scalar, shown_bytes
from linepool.values.unset import UNSET

NESTED = "nested too deeply"
_Convert = Callable[[Any], Any]

_AS_THEY_ARE = frozenset({str, int, bool, type(None)})


def plain(value: Any) -> Any:
    """Return a value as one of JSON: a dict with str keys, list, str, int, float, bool or None.

    A scalar is shown as the table of scalars says; an object of a class (attrs, dataclass, pydantic
    model, msgspec Struct) is a dict of its fields; a tuple, a set and an iterator are lists. The keys of a
    dict are words.

    Raises:
        TypeError: JSON has no form for it.
        ValueError: It holds NaN, Infinity or itself.
    """
    try:
        return _plain(value)
    except RecursionError:
        raise ValueError(NESTED) from None


def as_own(value: Any) -> Any:
    """Return a scalar of another library, such as NumPy, as Python's own; any other value as it is.

    Its numbers are known by the classes of ``numbers``, its other scalars by ``item()`` and an empty
    ``shape``. A fraction stays: a float would be another number.
    """
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real) and not isinstance(value, numbers.Rational):
        return float(value)
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple) and not shape:
        own = value.item()
        return value if type(own) is type(value) else own
    return value


def fields_of(kind: type) -> list[tuple[str, str]] | None:
    """Return the fields of an attrs class or a dataclass as attribute and key; None for other types."""
    if attrs.has(kind):
        return [(field.name, field.alias or field.name) for field in attrs.fields(kind)]
    if dataclasses.is_dataclass(kind):
        return [(field.name, field.name) for field in dataclasses.fields(kind)]
    return None


def _plain(value: Any) -> Any:
    kind = type(value)
    if kind in _AS_THEY_ARE:
        return value
    convert = _BY_TYPE.get(kind)
    if convert is None:
        convert = _BY_TYPE[kind] = _converter(kind)
    return convert(value)


def _float(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError(f"JSON has no form for {value!r}")
    return value


def _items(value: Iterable[Any]) -> list[Any]:
    # A long list of plain values costs a fifth so.
    if type(value) is list and {*map(type, value)} <= _AS_THEY_ARE:
        return value
    return [_plain(item) for item in value]


def _mapping(value: Mapping[Any, Any]) -> dict[str, Any]:
    return {
        key if type(key) is str else _key(key): item if type(item) in _AS_THEY_ARE else _plain(item)
        for key, item in value.items()
    }


def _key(key: Any) -> str:
    """Return a key of a dict as its word."""
    shown = _plain(key)
    if isinstance(shown, list | dict):
        raise TypeError(f"cannot send a {type(key).__name__} as a key in JSON")
    if isinstance(shown, str):
        return shown
    if shown is None or isinstance(shown, bool):
        return "null" if shown is None else str(shown).lower()
    return repr(shown)


_BY_TYPE: dict[type, _Convert] = {float: _float, list: _items, tuple: _items, dict: _mapping}
_BY_CLASS: tuple[tuple[Any, _Convert], ...] = (
    ((bytearray, memoryview), shown_bytes),
    (Mapping, _mapping),
)


def _other(value: Any) -> Any:
    if (own := as_own(value)) is not value:
        return _plain(own)
    if isinstance(value, Iterable):
        return _items(value)
    raise TypeError(f"cannot send a {type(value).__name__} in JSON")


def _converter(kind: type) -> _Convert:
    """Return what makes values of a type plain."""
    if (row := scalar(kind)) is not None:
        return lambda value: _plain(row.show(value))
    if hasattr(kind, "model_dump") and hasattr(kind, "__pydantic_validator__"):
        return lambda model: _plain(model.model_dump(mode="json", by_alias=True))
    if hasattr(kind, "__struct_fields__"):
        to_builtins = sys.modules["msgspec"].to_builtins
        return lambda struct: _plain(to_builtins(struct, enc_hook=_plain))
    if (fields := fields_of(kind)) is not None:
        return _record(kind, fields)
    for of, convert in _BY_CLASS:
        if issubclass(kind, of):
            return convert
    return _other


def _record(kind: type, fields: list[tuple[str, str]]) -> _Convert:
    keys = [key for _, key in fields]
    if any(getattr(kind, name, None) is UNSET for name, _ in fields):
        return lambda value: {
            key: _plain(one) for name, key in fields if (one := getattr(value, name)) is not UNSET
        }
    if len(fields) < 2:  # attrgetter() returns a tuple from two names on
        return lambda value: {key: _plain(getattr(value, name)) for name, key in fields}
    get = operator.attrgetter(*(name for name, _ in fields))
    return lambda value: dict(zip(keys, map(_plain, get(value)), strict=True))
