"""HyperLogLog: how many different elements were added, nearly, in 12 KB. The values are those of Redis."""

from __future__ import annotations

import math
from collections import Counter

from application import app
from db import Db
from layout import STRING
from strings import changed
from transaction import Txn

from linepool import ClientError
from linepool.protocols.resp import OK, Status

_REGISTERS = 1 << 14
_HEAD = b"HYLL" + bytes(12)  # a dense value; the number of elements is not kept in it
_STALE = 1 << 7  # in the last byte of that number: it is to be counted
_RANKS = 50  # the largest rank; a hash has 64 bits, 14 of which choose the register
_BITS = 6  # of a register
_ALPHA = 0.721347520444481703680  # 0.5 / ln 2
_SEED = 0xADC83B19
_M = 0xC6A4A7935BD1E995
_U64 = 2**64 - 1


def murmur(data: bytes) -> int:
    """Return the 64-bit hash (MurmurHash64A) with the seed that Redis uses."""
    value = _SEED ^ len(data) * _M & _U64
    whole = len(data) // 8 * 8
    for at in range(0, whole, 8):
        word = int.from_bytes(data[at : at + 8], "little") * _M & _U64
        word = (word ^ word >> 47) * _M & _U64
        value = (value ^ word) * _M & _U64
    if rest := data[whole:]:
        value = (value ^ int.from_bytes(rest, "little")) * _M & _U64
    value = (value ^ value >> 47) * _M & _U64
    return value ^ value >> 47


def place_of(element: bytes) -> tuple[int, int]:
    """Return the register of an element, and its rank there."""
    number = murmur(element)
    rest = number >> 14 | 1 << _RANKS
    return number & (_REGISTERS - 1), (rest & -rest).bit_length()


def registers_of(value: bytes) -> bytearray:
    """Return the registers of a value, a byte each.

    Raises:
        ClientError: It is not a HyperLogLog.
    """
    if value[:4] != b"HYLL" or len(value) < len(_HEAD) or value[4] > 1:
        raise _not_valid()
    if value[4] == 1:
        return _sparse(value[len(_HEAD) :])
    if len(value) != len(_HEAD) + _REGISTERS * _BITS // 8:
        raise _not_valid()
    found = bytearray()
    for at in range(len(_HEAD), len(value), 3):
        word = int.from_bytes(value[at : at + 3], "little")
        found += bytes((word & 63, word >> 6 & 63, word >> 12 & 63, word >> 18))
    return found


def _sparse(codes: bytes) -> bytearray:
    """Return the registers of a value in the short form that Redis uses for few elements."""
    found = bytearray()
    at = 0
    while at < len(codes):
        code = codes[at]
        at += 1
        if code < 0x40:
            found += bytes((code & 0x3F) + 1)
        elif code < 0x80 and at < len(codes):
            found += bytes(((code & 0x3F) << 8 | codes[at]) + 1)
            at += 1
        else:
            found += bytes([(code >> 2 & 31) + 1]) * ((code & 3) + 1)
    if len(found) != _REGISTERS:
        raise ClientError("Corrupted HLL object detected", code="INVALIDOBJ")
    return found


def packed(registers: bytearray) -> bytes:
    """Return a value with these registers."""
    parts = [_HEAD[:15] + bytes([_STALE])]
    for at in range(0, _REGISTERS, 4):
        first, second, third, fourth = registers[at : at + 4]
        parts.append((first | second << 6 | third << 12 | fourth << 18).to_bytes(3, "little"))
    return b"".join(parts)


def added(value: bytes, elements: tuple[bytes, ...]) -> bytes | None:
    """Return a value to which elements were added; None: it is the same."""
    if value[4:5] == b"\1":
        value = packed(registers_of(value))
    elif len(value) != len(_HEAD) + _REGISTERS * _BITS // 8 or value[:5] != b"HYLL\0":
        raise _not_valid()
    dense = bytearray(value)
    is_changed = False
    for element in elements:
        register, rank = place_of(element)
        at = len(_HEAD) + register // 4 * 3
        shift = register % 4 * _BITS
        word = int.from_bytes(dense[at : at + 3], "little")
        if word >> shift & 63 < rank:
            word = word & ~(63 << shift) | rank << shift
            dense[at : at + 3] = word.to_bytes(3, "little")
            is_changed = True
    dense[15] |= _STALE
    return bytes(dense) if is_changed else None


def _not_valid() -> ClientError:
    return ClientError("Key is not a valid HyperLogLog string value.", code="WRONGTYPE")


def estimate(registers: bytearray) -> int:
    """Return the number of elements that registers stand for, by Ertl's estimator."""
    counts = Counter(registers)
    z = _REGISTERS * _tau((_REGISTERS - counts[_RANKS + 1]) / _REGISTERS)
    for rank in range(_RANKS, 0, -1):
        z = 0.5 * (z + counts[rank])
    z += _REGISTERS * _sigma(counts[0] / _REGISTERS)
    number = _ALPHA * _REGISTERS * _REGISTERS / z
    return math.floor(number + 0.5)


def _sigma(x: float) -> float:
    if x == 1.0:
        return math.inf
    y, z, before = 1.0, x, -1.0
    while z != before:
        x *= x
        before = z
        z += x * y
        y += y
    return z


def _tau(x: float) -> float:
    if x in (0.0, 1.0):
        return 0.0
    y, z, before = 1.0, 1 - x, -1.0
    while z != before:
        x = math.sqrt(x)
        before = z
        y *= 0.5
        z -= (1 - x) ** 2 * y
    return z / 3


def united(t: Txn, keys: tuple[bytes, ...]) -> bytearray:
    """Return for each register the largest value that it has in one of the keys."""
    found = bytearray(_REGISTERS)
    for key in keys:
        if (header := t.typed(key, STRING)) is not None:
            registers = registers_of(header.value)
            found = bytearray(map(max, found, registers)) if any(found) else registers
    return found


@app.handler(flags="write denyoom fast")
def pfadd(key: bytes, *elements: bytes, db: Db) -> int:
    """Add elements; return whether the estimate may have changed."""
    with db.write() as t:
        header = t.typed(key, STRING)
        before = packed(bytearray(_REGISTERS)) if header is None else header.value
        value = added(before, elements)
        if value is None and header is not None:
            return 0
        changed(t, header, key, value or before, is_edited=True)
        t.notify("pfadd", key)
        return 1


@app.handler(flags="readonly", keys=(1, -1, 1))
def pfcount(key: bytes, *keys: bytes, db: Db) -> int:
    """Return about how many different elements were added to the keys together."""
    with db.read() as t:
        return estimate(united(t, (key, *keys)))


@app.handler(flags="write denyoom", keys=(1, -1, 1))
def pfmerge(target: bytes, *keys: bytes, db: Db) -> Status:
    """Make a key stand for all elements that were added to it and to other keys."""
    with db.write() as t:
        registers = united(t, (target, *keys))
        changed(t, t.typed(target, STRING), target, packed(registers), is_edited=True)
        t.notify("pfadd", target)
    return OK
