"""Values in RESP, the protocol of Redis: the form of each Python type in versions 2 and 3."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Set
from enum import Enum
from typing import Any

from attrs import frozen

from linepool.errors import ReplyError, ServerError
from linepool.protocols.text import library_text, record_fields
from linepool.values.plain import as_own

_INT64 = range(-(2**63), 2**63)
_LINE_BREAKS = bytes.maketrans(b"\r\n", b"  ")


class Status(str):
    """A simple string, such as ``+OK``; a plain str or bytes is a bulk string."""

    __slots__ = ()


OK = Status("OK")


@frozen
class Verbatim:
    """Text with its format, three letters (``txt``, ``mkd``); in version 2 a bulk string."""

    text: str
    format: str = "txt"


@frozen
class Push:
    """Data that is not a reply to a request, such as a message; in version 2 an array."""

    items: list[Any]


class NullArray:
    """The null of a command whose reply is an array: ``*-1`` in version 2, null in version 3."""


@frozen
class PerVersion:
    """A value that is not alike in the versions of the protocol: what it is in each of them."""

    resp2: Any
    resp3: Any


def encode(value: object, version: int) -> bytes:
    """Return a value in RESP 2 or 3.

    Raises:
        TypeError: RESP has no form for such a value.
    """
    if value is None:
        return b"_\r\n" if version == 3 else b"$-1\r\n"
    if isinstance(value, bytes):
        return b"$%d\r\n%b\r\n" % (len(value), value)
    if isinstance(value, memoryview):
        return b"".join((b"$%d\r\n" % value.nbytes, value, b"\r\n"))
    parts: list[bytes] = []
    _add(parts, value, version)
    return b"".join(parts)


def encode_error(error: ReplyError) -> bytes:
    """Return an error reply; line breaks in its text become blanks, as in Redis."""
    code = error.code if isinstance(error.code, str) else "ERR"
    text = str(error)
    if isinstance(error, ServerError) and error.code is None and not text:
        text = "internal error"
    line = f"{code} {text}" if text else code
    return b"-%b\r\n" % line.encode("utf-8", "replace").translate(_LINE_BREAKS)


def _add(parts: list[bytes], value: Any, version: int) -> None:
    if value is None or type(value) is int:  # the most frequent types first
        parts.append(_number(value, version))
    elif (text := _bulk(value)) is not None:
        parts.append(b"$%d\r\n%b\r\n" % (len(text), text))
    elif isinstance(value, Status):
        parts.append(b"+%b\r\n" % value.encode().translate(_LINE_BREAKS))
    elif isinstance(value, (int, float)) and not isinstance(value, Enum):
        parts.append(_number(value, version))
    elif isinstance(value, Mapping):
        _add_pairs(parts, value.items(), len(value), version)
    elif isinstance(value, (list, tuple, Set)):
        mark = b"~" if version == 3 and isinstance(value, Set) else b"*"
        _add_all(parts, mark, value, len(value), version)
    elif isinstance(value, PerVersion):
        _add(parts, value.resp3 if version == 3 else value.resp2, version)
    else:
        _add_other(parts, value, version)


def _add_other(parts: list[bytes], value: Any, version: int) -> None:
    if isinstance(value, ReplyError):
        parts.append(encode_error(value))
    elif isinstance(value, NullArray):
        parts.append(b"_\r\n" if version == 3 else b"*-1\r\n")
    elif isinstance(value, Push):
        mark = b">" if version == 3 else b"*"
        _add_all(parts, mark, value.items, len(value.items), version)
    elif isinstance(value, Verbatim):
        text = value.text.encode()
        mark = b"="
        if version == 3:
            text = value.format.encode()[:3].ljust(3) + b":" + text
        else:
            mark = b"$"
        parts.append(b"%b%d\r\n%b\r\n" % (mark, len(text), text))
    elif isinstance(value, Enum):
        _add(parts, value.value, version)
    elif (fields := record_fields(value)) is not None:
        _add_pairs(parts, fields, len(fields), version)
    elif (own := as_own(value)) is not value:
        _add(parts, own, version)
    elif isinstance(value, Iterable):
        items = list(value)
        _add_all(parts, b"*", items, len(items), version)
    else:
        raise TypeError(f"cannot send a {type(value).__name__} in a RESP reply")


def _add_all(
    parts: list[bytes], mark: bytes, items: Iterable[Any], count: int, version: int
) -> None:
    parts.append(b"%b%d\r\n" % (mark, count))
    for item in items:
        _add(parts, item, version)


def _add_pairs(
    parts: list[bytes], pairs: Iterable[tuple[Any, Any]], count: int, version: int
) -> None:
    parts.append(b"%%%d\r\n" % count if version == 3 else b"*%d\r\n" % (2 * count))
    for key, value in pairs:
        _add(parts, key, version)
        _add(parts, value, version)


def _bulk(value: object) -> bytes | None:
    """Return the text of a value that is sent as a bulk string, or None for other values."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    if isinstance(value, str) and not isinstance(value, (Status, Enum)):
        return value.encode()
    return library_text(value)


def _number(value: float | None, version: int) -> bytes:
    if value is None:
        return b"_\r\n" if version == 3 else b"$-1\r\n"
    if isinstance(value, bool):
        return (b"#t\r\n" if value else b"#f\r\n") if version == 3 else b":%d\r\n" % value
    if isinstance(value, int):
        return _int(value, version)
    text = float_text(value)
    return b",%b\r\n" % text if version == 3 else b"$%d\r\n%b\r\n" % (len(text), text)


def _int(value: int, version: int) -> bytes:
    # ``in`` would try all numbers of the range, one by one, if the type is derived from int.
    if _INT64.start <= value < _INT64.stop:
        return b":%d\r\n" % value
    text = b"%d" % value
    return b"(%b\r\n" % text if version == 3 else b"$%d\r\n%b\r\n" % (len(text), text)


def float_text(value: float) -> bytes:
    """Return a float as Redis writes it: the shortest text with the same value, ``inf``, ``nan``."""
    if math.isinf(value) or math.isnan(value):
        return float.__repr__(value).encode()
    if value == int(value) and abs(value) < 1e17:
        return b"%d" % int(value) if value or math.copysign(1, value) > 0 else b"-0"
    return float.__repr__(value).encode()
