"""The table of scalar types: how a value of each is written and read. Pure: no I/O, no clock.

A row says how a type is read from a word and from a JSON value, how it is shown, its JSON Schema, and an
example for errors. A type whose JSON form is a string is read by one function: its word is its JSON
string. Types of other modules are known by name, so nothing is imported for them.
"""

from __future__ import annotations

import binascii
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from enum import Enum
from functools import partial
from typing import Any, Literal, get_args, get_origin

from attrs import evolve

from linepool.session import Rest, Secret
from linepool.values.durations import duration, shown_duration
from linepool.values.row import Scalar, text_row
from linepool.values.words import (
    Expected,
    word_to_bool,
    word_to_bytes,
    word_to_float,
    word_to_int,
    word_to_none,
    word_to_str,
)

_MAX_EXPONENT = 4300  # as many digits as int() takes; to write out 1e1000000000 would take minutes


def unchanged(value: Any) -> Any:
    """Return the value as it is."""
    return value


# -- rows


def _strict(expected: str, kinds: tuple[type, ...], make: Callable[[Any], Any]) -> Any:
    def convert(value: Any) -> Any:
        if type(value) not in kinds:  # not isinstance: a bool is not a number here
            raise Expected(expected)
        try:
            return make(value)
        except (ValueError, OverflowError):
            raise Expected(expected) from None

    return convert


def _bytes_of(text: str) -> bytes:
    return binascii.a2b_base64(text.encode("ascii"), strict_mode=True)


def shown_bytes(value: Any) -> str:
    """Return bytes as base64."""
    return binascii.b2a_base64(value, newline=False).decode()


def _finite(value: float) -> float:
    value = float(value)
    if value - value != 0:  # infinity, which JSON does not have
        raise ValueError
    return value


def _ascii(make: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return the conversion of a text without what only Python accepts: other scripts' digits, ``1_000``."""

    def parse(text: str) -> Any:
        if "_" in text or not text.isascii():
            raise ValueError
        return make(text)

    return parse


def _number(make: Callable[[str], Any]) -> Callable[[str], Any]:
    """As ``_ascii``, with a bounded exponent: what is done with a number costs as much as its digits."""

    def parse(text: str) -> Any:
        _, mark, exponent = text.lower().rpartition("e")
        if mark and not -_MAX_EXPONENT <= int(exponent) <= _MAX_EXPONENT:
            raise ValueError
        return make(text)

    return _ascii(parse)


def _isoformat(value: Any) -> str:
    text: str = value.isoformat()
    return text


def _like_text(kind: type) -> Scalar:
    return Scalar(
        "str",
        lambda word: kind(word_to_str(word)),
        _strict("str", (str,), kind),
        lambda value: "".join((value,)),
        {"type": "string"},
    )


_PLAIN: dict[Any, Scalar] = {
    str: Scalar(
        "str", word_to_str, _strict("str", (str,), unchanged), unchanged, {"type": "string"}
    ),
    int: Scalar(
        "int", word_to_int, _strict("int", (int,), unchanged), unchanged, {"type": "integer"}
    ),
    float: Scalar(
        "float", word_to_float, _strict("float", (int, float), _finite), float, {"type": "number"}
    ),
    bool: Scalar(
        "bool", word_to_bool, _strict("bool", (bool,), unchanged), unchanged, {"type": "boolean"}
    ),
    type(None): Scalar(
        "null",
        word_to_none,
        _strict("null", (type(None),), unchanged),
        unchanged,
        {"type": "null"},
    ),
    bytes: Scalar(
        "bytes",
        word_to_bytes,
        _strict("base64 text", (str,), _bytes_of),
        shown_bytes,
        {"type": "string", "contentEncoding": "base64"},
    ),
    Rest: _like_text(Rest),
    Secret: _like_text(Secret),
    timedelta: text_row(
        timedelta, duration, shown_duration, example="PT1H30M", schema={"format": "duration"}
    ),
}
_ROWS: dict[Any, Scalar | None] = {**_PLAIN}  # and, when they are asked for, those of other types
# Of a subclass, as its base: it may have a str() or an int() of its own.
_SHOWN_AS: dict[type, Callable[[Any], Any]] = {
    str: str.__str__,
    int: int.__int__,
    float: float.__float__,
    bytes: shown_bytes,
}
_TIMES: dict[type, tuple[str, str]] = {  # a datetime is a date too, so it comes first
    datetime: ("2026-01-31T12:00:00", "date-time"),
    date: ("2026-01-31", "date"),
    time: ("12:00:00", "time"),
}


def _address(kind: Any, example: str) -> Scalar:
    form = kind.__name__.lower().removesuffix("address")
    return text_row(kind, kind, example=example, schema={"format": form})


_NAMED: dict[tuple[str, str], Callable[[Any], Scalar]] = {
    ("decimal", "Decimal"): lambda kind: text_row(
        kind,
        _number(kind),
        example="12.50",
        schema={"format": "decimal"},
        numbers=(int, float),
    ),
    ("fractions", "Fraction"): lambda kind: text_row(
        kind, _number(kind), example="1/3", schema={"format": "fraction"}, numbers=(int, float)
    ),
    ("uuid", "UUID"): lambda kind: text_row(
        kind,
        _ascii(kind),
        example="12345678-1234-5678-1234-567812345678",
        schema={"format": "uuid"},
    ),
    **{
        ("ipaddress", name): partial(_address, example=example)
        for name, example in (
            ("IPv4Address", "192.0.2.1"),
            ("IPv6Address", "2001:db8::1"),
            ("IPv4Network", "192.0.2.0/24"),
            ("IPv6Network", "2001:db8::/32"),
            ("IPv4Interface", "192.0.2.1/24"),
            ("IPv6Interface", "2001:db8::1/64"),
        )
    },
    **{
        ("pathlib", name): lambda kind: text_row(kind, kind, schema={"format": "path"})
        for name in ("Path", "PurePath", "PosixPath", "PurePosixPath")
    },
}


def scalar(hint: Any) -> Scalar | None:
    """Return the row of a type, or None: it is not a scalar.

    ``Annotated``, unions and new types are not in the table; their parts may be.

    Raises:
        TypeError: It is a scalar that cannot be sent, such as an Enum without members.
    """
    try:
        if hint in _ROWS:
            return _ROWS[hint]
    except TypeError:  # not hashable: a Literal of a list
        return None
    row = _made(hint)
    if isinstance(hint, type):  # not a Literal: two that differ in their order are equal
        _ROWS[hint] = row
    return row


def add(kind: type, row: Scalar) -> None:
    """Add a row for a type, or replace it."""
    _ROWS[kind] = row


def _made(hint: Any) -> Scalar | None:
    if get_origin(hint) is Literal:
        return _literal(get_args(hint))
    if not isinstance(hint, type) or get_origin(hint) is not None:
        return None
    if issubclass(hint, Enum):
        return _enum(hint)
    for kind, (example, form) in _TIMES.items():
        if issubclass(hint, kind):
            made: Any = hint
            return text_row(
                hint,
                _ascii(made.fromisoformat),
                _isoformat,
                example=example,
                schema={"format": form},
            )
    module = hint.__module__.partition(".")[0]
    make = _NAMED.get((module, hint.__qualname__))
    if make is not None:
        return make(hint)
    if module == "numpy":
        return _numpy(hint)
    for own in (str, int, float, bytes):
        if issubclass(hint, own):
            return _derived(hint, own, _SHOWN_AS[own])
    return None


# -- choices


class _Choices(dict[bytes, Any]):
    """Values by word; where no word is written exactly so, case is ignored."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        super().__init__((name.encode(), value) for name, value in values.items())
        self._folded = {word.upper(): value for word, value in reversed(self.items())}

    def __missing__(self, word: bytes) -> Any:
        return self._folded[word.upper()]


def _choice(members: Mapping[str, Any], more: Mapping[str, Any], values: Sequence[Any]) -> Scalar:
    """Return the row of a fixed set of values.

    Args:
        members: The values by name, as usage texts and errors show them.
        more: Further words of them; a member's name comes before a word.
        values: All of them; two may have one name, such as 1 and "1".
    """
    find = _Choices({**more, **members}).__getitem__
    expected = " or ".join(members)
    enum = [_shown(one) for one in values]
    expected_value = " or ".join(map(str, enum))
    # 1, 1.0 and true are different values here. A shown value comes before a name.
    by_value = {(str, name): one for name, one in members.items()}
    by_value |= {(type(_shown(one)), _shown(one)): one for one in reversed(values)}

    def word(data: bytes) -> Any:
        try:
            return find(data)
        except KeyError:
            raise Expected(expected) from None

    def value(given: Any) -> Any:
        try:
            return by_value[type(given), given]
        except (KeyError, TypeError):
            raise Expected(expected_value) from None

    return Scalar("|".join(members), word, value, _shown, {"enum": enum})


def _shown(one: Any) -> Any:
    """Return how JSON shows one of a choice; of an Enum its name, if its value is not a scalar."""
    if isinstance(one, Enum):
        row = scalar(type(one.value))
        return one.name if row is None else row.show(one.value)
    return shown_bytes(one) if isinstance(one, bytes) else one


def _enum(kind: type[Enum]) -> Scalar:
    if not (members := list(kind)):
        raise TypeError(f"{kind.__name__} has no members")
    names = {one.name: one for one in members}
    row = _choice(names, {str(one.value): one for one in members}, members)
    return evolve(
        row, schema={**row.schema, "title": kind.__name__, "x-enum-varnames": list(names)}
    )


def _literal(given: tuple[Any, ...]) -> Scalar:
    members = {_written(one): one for one in given}
    more = {str(one.value): one for one in given if isinstance(one, Enum)}
    return _choice(members, more, given)


def _written(literal: Any) -> str:
    if isinstance(literal, Enum):
        return literal.name
    return literal.decode() if isinstance(literal, bytes) else str(literal)


def _derived(kind: Any, own: type, show: Callable[[Any], Any]) -> Scalar:
    """Return the row of a type that is made from one of Python's own: a subclass, a NumPy scalar."""
    row = _PLAIN[own]
    name = kind.__name__

    def made(convert: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def make(given: Any) -> Any:
            value = convert(given)
            try:
                return kind(value)
            except (ValueError, OverflowError):
                raise Expected(name) from None

        return make

    return Scalar(name, made(row.word), made(row.value), show, row.schema)


def _numpy(kind: Any) -> Scalar | None:
    """Return the row of a scalar type of NumPy, which is that of Python's own: ``float64`` as a float."""
    try:
        own = type(kind(0).item())
    except Exception:  # noqa: BLE001 - an abstract class, or a type without a zero
        return None
    if own not in (int, float, bool, str):
        return None
    if own is not float:
        return _derived(kind, own, lambda value: value.item())
    most = float(sys.modules["numpy"].finfo(kind).max)

    def make(value: float) -> Any:
        if most < abs(value) < math.inf:
            raise ValueError
        return kind(value)

    make.__name__ = kind.__name__
    return _derived(make, float, lambda value: value.item())
