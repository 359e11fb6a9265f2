"""Commands for the bits of strings."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce

from application import app
from db import Db
from layout import STRING, parse_int
from strings import MAX_STRING_BYTES, changed, store, value_of

from linepool import ClientError

_SYNTAX = "syntax error"
_NOT_INTEGER = "value is not an integer or out of range"
_NOT_OFFSET = "bit offset is not an integer or out of range"


def bit_offset(word: bytes) -> int:
    """Return the offset of a bit.

    Raises:
        ClientError: It is beyond the longest string, or not a number.
    """
    offset = parse_int(word)
    if offset is None or not 0 <= offset < MAX_STRING_BYTES * 8:
        raise ClientError(_NOT_OFFSET)
    return offset


@app.handler(flags="write denyoom")
def setbit(key: bytes, offset: bytes, value: bytes, db: Db) -> int:
    """Set one bit; return the old one."""
    at = bit_offset(offset)
    if value not in (b"0", b"1"):
        raise ClientError("bit is not an integer or out of range")
    with db.write() as t:
        header = t.typed(key, STRING)
        before = header.value if header else b""
        text = bytearray(before.ljust(at // 8 + 1, b"\0"))
        mask = 0x80 >> at % 8
        old = bool(text[at // 8] & mask)
        text[at // 8] = text[at // 8] & ~mask | mask * (value == b"1")
        if text != before:
            changed(t, header, key, bytes(text), is_edited=True)
            t.notify("setbit", key)
        return int(old)


@app.handler(flags="readonly fast")
def getbit(key: bytes, offset: bytes, db: Db) -> int:
    """Return one bit."""
    at = bit_offset(offset)
    with db.read() as t:
        text = value_of(t, key) or b""
    byte = text[at // 8] if at // 8 < len(text) else 0
    return byte >> (7 - at % 8) & 1


def integer(word: bytes) -> int:
    """Return an integer, or raise ClientError."""
    number = parse_int(word)
    if number is None:
        raise ClientError(_NOT_INTEGER)
    return number


def bit_range(words: tuple[bytes, ...], size: int) -> tuple[int, int]:
    """Return the first bit of a range, and the one behind its last: ``start [end [BYTE|BIT]]``.

    Args:
        words: The range; without words, it is all bits.
        size: The length of the string, in bytes.

    Raises:
        ClientError: The words do not describe a range.
    """
    if len(words) > 3:
        raise ClientError(_SYNTAX)
    start = integer(words[0]) if words else 0
    unit = words[2].upper() if len(words) == 3 else b"BYTE"
    if unit not in (b"BYTE", b"BIT"):
        raise ClientError(_SYNTAX)
    end = integer(words[1]) if len(words) > 1 else -1
    width = 8 if unit == b"BYTE" else 1
    count = size * 8 // width
    first = max(0, start + count if start < 0 else start)
    last = min(max(0, end + count if end < 0 else end), count - 1)
    return first * width, (last + 1) * width


def bits_within(text: bytes, first: int, stop: int) -> tuple[int, int]:
    """Return some bits of a string as a number, and how many they are."""
    if first >= stop:
        return 0, 0
    part = text[first // 8 : (stop + 7) // 8]
    number = int.from_bytes(part, "big") >> -stop % 8
    return number & ((1 << stop - first) - 1), stop - first


@app.handler(flags="readonly")
def bitcount(key: bytes, *words: bytes, db: Db) -> int:
    """Count the bits that are set: BITCOUNT key [start end [BYTE|BIT]]."""
    with db.read() as t:
        text = value_of(t, key)
    if text is None:
        return 0
    if len(words) == 1 or len(words) > 3:
        raise ClientError(_SYNTAX)
    start, end = [integer(word) for word in words[:2]] or (0, 0)
    if end < start < 0:
        return 0
    first, stop = bit_range(words, len(text))
    return bits_within(text, first, stop)[0].bit_count()


@app.handler(flags="readonly")
def bitpos(key: bytes, bit: int, *words: bytes, db: Db) -> int:
    """Return the position of the first bit that is set, or not: BITPOS key bit [start [end [BYTE|BIT]]]."""
    if bit not in (0, 1):
        raise ClientError("The bit argument must be 1 or 0.")
    with db.read() as t:
        text = value_of(t, key)
    if text is None:
        return -1 if bit else 0
    first, stop = bit_range(words, len(text))
    number, count = bits_within(text, first, stop)
    if not count:
        return -1
    if not bit:
        number ^= (1 << count) - 1
    if number:
        return first + count - number.bit_length()
    return -1 if bit or len(words) > 1 else stop  # behind the string, all bits are 0


_OPERATIONS: dict[str, Callable[[int, int], int]] = {
    "AND": lambda a, b: a & b,
    "OR": lambda a, b: a | b,
    "XOR": lambda a, b: a ^ b,
}


@app.handler(flags="write denyoom", keys=(2, -1, 1))
def bitop(operation: str, target: bytes, key: bytes, *keys: bytes, db: Db) -> int:
    """Store the AND, OR, XOR or NOT of strings; return its length."""
    name = operation.upper()
    if name not in (*_OPERATIONS, "NOT"):
        raise ClientError(_SYNTAX)
    if name == "NOT" and keys:
        raise ClientError("BITOP NOT must be called with a single source key.")
    with db.write() as t:
        texts = [value_of(t, one) or b"" for one in (key, *keys)]
        size = max(map(len, texts))
        numbers = [int.from_bytes(text.ljust(size, b"\0"), "big") for text in texts]
        ones = (1 << 8 * size) - 1
        result = numbers[0] ^ ones if name == "NOT" else reduce(_OPERATIONS[name], numbers)
        if size:
            store(t, target, result.to_bytes(size, "big"))
            t.notify("set", target)
        elif old := t.find(target):
            t.remove(old)
            t.notify("del", target)
    return size
