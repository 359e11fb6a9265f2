"""The libraries bit and struct of scripts, and the floats of cmsgpack, for Lua to call."""

from __future__ import annotations

import contextlib
import math
import re
import struct
from collections.abc import Callable, Iterator
from typing import Literal

from attrs import frozen
from lua_values import ScriptError

_INT32, _UINT32 = 2**31, 2**32
_STEP = re.compile(rb"([<>=!bBhHlLTiIsfdxc ])(\d*)")
_SIZES = {b"b": 1, b"h": 2, b"l": 8, b"t": 8, b"f": 4, b"d": 8, b"x": 1}
_MAX_INT_BYTES = 32
_MAX_ALIGN = 8


def _int32(value: object) -> int:
    """Return a number of Lua's as an int of 32 bits, as the library bit has it."""
    if isinstance(value, bytes):
        with contextlib.suppress(ValueError):
            value = float(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ScriptError("ERR bad argument to a function of bit (number expected)")
    if isinstance(value, float):
        value = round(value) if math.isfinite(value) else 0
    return _signed(value)


def _signed(value: int) -> int:
    return (value + _INT32) % _UINT32 - _INT32


def _all(combine: Callable[[int, int], int]) -> Callable[..., int]:
    def combined(first: object, *others: object) -> int:
        value = _int32(first)
        for other in others:
            value = combine(value, _int32(other))
        return value

    return combined


def _shift(shifted: Callable[[int, int], int]) -> Callable[[object, object], int]:
    """Return a function of the value as an unsigned int, and the shift."""
    return lambda value, by: _signed(shifted(_int32(value) % _UINT32, _int32(by) % 32))


def _hex(value: object, digits: object = 8) -> bytes:
    count = _int32(digits)
    text = b"%08x" % (_int32(value) % _UINT32)
    shown = text[8 - min(8, abs(count)) :]
    return shown.upper() if count < 0 else shown


BIT: dict[bytes, Callable[..., object]] = {
    b"tobit": _int32,
    b"bnot": lambda value: ~_int32(value),
    b"band": _all(lambda a, b: a & b),
    b"bor": _all(lambda a, b: a | b),
    b"bxor": _all(lambda a, b: a ^ b),
    b"lshift": _shift(lambda value, by: value << by),
    b"rshift": _shift(lambda value, by: value >> by),
    b"arshift": lambda value, by: _int32(value) >> (_int32(by) % 32),
    b"rol": _shift(lambda value, by: value << by | value >> (32 - by)),
    b"ror": _shift(lambda value, by: value >> by | value << (32 - by)),
    b"bswap": lambda value: _signed(
        int.from_bytes((_int32(value) % _UINT32).to_bytes(4, "little"), "big")
    ),
    b"tohex": _hex,
}


@frozen
class _Step:
    """A part of a format of struct.

    Attributes:
        letter: What it is.
        size: In bytes; of a text (``c``), 0: its length is the number before it.
        order: The order of the bytes.
        alignment: In bytes.
    """

    letter: bytes
    size: int
    order: Literal["little", "big"]
    alignment: int


def _steps(layout: bytes) -> Iterator[_Step]:
    order: Literal["little", "big"] = "little"
    most, at = 1, 0  # the largest alignment
    while at < len(layout):
        match = _STEP.match(layout, at)
        if match is None:
            raise ScriptError(f"ERR invalid format option '{chr(layout[at])}'")
        letter, digits = match.groups()
        if letter not in b"!iIc":
            digits = b""
        at += 1 + len(digits)
        if letter in b"<>=":
            order = "big" if letter == b">" else "little"
        elif letter == b"!":
            most = int(digits[:9] or _MAX_ALIGN)
        elif letter != b" ":
            size = _step_size(letter, digits)
            is_aligned = letter not in b"csx" and size
            yield _Step(letter, size, order, min(size, most) if is_aligned else 1)


def _step_size(letter: bytes, digits: bytes) -> int:
    if letter in b"iI":
        size = int(digits[:9] or 4)
        if size > _MAX_INT_BYTES:
            raise ScriptError(f"ERR integral size {size} is larger than limit of {_MAX_INT_BYTES}")
        return size
    if letter == b"c":
        return int(digits[:9] or 1)
    return _SIZES.get(letter.lower(), 0)


def _packed(layout: object, *values: object) -> bytes:
    out = b""
    given = iter(values)
    for step in _steps(_text(layout)):
        letter, size, order = step.letter, step.size, step.order
        out += b"\0" * (-len(out) % step.alignment)
        if letter == b"x":
            out += b"\0"
            continue
        value = next(given, None)
        if value is None:
            raise ScriptError("ERR bad argument to 'pack' (a value is missing)")
        if letter in b"sc":
            text = _text(value)
            if letter == b"c" and len(text) < size:
                raise ScriptError("ERR bad argument to 'pack' (string too short)")
            out += text + b"\0" if letter == b"s" else text[: size or None]
        elif letter in b"fd":
            out += struct.pack((">" if order == "big" else "<") + letter.decode(), _number(value))
        else:
            number = int(_number(value)) % (1 << 8 * size)
            out += number.to_bytes(size, order)
    return out


def _unpacked(layout: object, data: object, position: object = 1) -> tuple[object, ...]:
    """Return the values, and the position behind them."""
    text, at = _text(data), int(_number(position)) - 1
    values: list[object] = []
    for step in _steps(_text(layout)):
        letter, size, order = step.letter, step.size, step.order
        at += -at % step.alignment
        if letter == b"c" and not size:
            length = values.pop() if values else None
            if not isinstance(length, (int, float)):
                raise ScriptError("ERR format 'c0' needs a previous size")
            size = int(length)
        if letter == b"s":
            end = text.find(b"\0", at)
            if end < 0:
                raise ScriptError("ERR unfinished string in data")
            values.append(text[at:end])
            at = end + 1
            continue
        if at < 0 or at + size > len(text):
            raise ScriptError("ERR bad argument #2 to 'unpack' (data string too short)")
        part = text[at : at + size]
        at += size
        if letter == b"c":
            values.append(part)
        elif letter in b"fd":
            values += struct.unpack((">" if order == "big" else "<") + letter.decode(), part)
        elif letter != b"x":
            values.append(int.from_bytes(part, order, signed=letter.islower()))
    return (*values, at + 1)


def _size(layout: object) -> int:
    total = 0
    for step in _steps(_text(layout)):
        if step.letter == b"s" or (step.letter == b"c" and not step.size):
            raise ScriptError("ERR bad argument #1 to 'size' (variable-size format)")
        total += -total % step.alignment + step.size
    return total


def _text(value: object) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ScriptError("ERR bad argument to a function of struct (string expected)")
    return b"%.14g" % value


def _number(value: object) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return value
    try:
        return float(_text(value))
    except ValueError:
        raise ScriptError("ERR bad argument to a function of struct (number expected)") from None


STRUCT: dict[bytes, Callable[..., object]] = {
    b"pack": _packed,
    b"unpack": _unpacked,
    b"size": _size,
}


def pack_double(value: float) -> bytes:
    """Return a number in MessagePack, in 4 bytes if they hold it."""
    try:
        short = struct.pack(">f", value)
    except OverflowError:
        return b"\xcb" + struct.pack(">d", value)
    if struct.unpack(">f", short)[0] == value:
        return b"\xca" + short
    return b"\xcb" + struct.pack(">d", value)


def unpack_double(data: bytes) -> float:
    """Return the number of 4 or 8 bytes of MessagePack."""
    return float(struct.unpack(">f" if len(data) == 4 else ">d", data)[0])
