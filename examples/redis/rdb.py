"""The serialized form of values in DUMP and RESTORE: that of Redis' dump file, version 10.

``packed`` writes the plain forms, which every Redis reads; ``unpacked`` also reads the compact ones, which
Redis writes: listpacks, ziplists, sets of integers and compressed strings.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from layout import HASH, LIST, SET, STRING, ZSET

_VERSION = 10
_NEWEST = 11  # of those that are read
_SCORE = struct.Struct("<d")
_TYPES = {STRING: 0, LIST: 1, SET: 2, HASH: 4, ZSET: 5}
_INTEGERS = {0: "<b", 1: "<h", 2: "<i"}  # strings that are stored as numbers
_COMPRESSED = 3
_OLD_SCORES = {253: float("nan"), 254: float("inf"), 255: float("-inf")}
_POLYNOMIAL = 0x95AC9329AC4BC9B5  # of Redis' CRC-64, bits reversed
_PACKED = 2  # a node of a list with many elements

Value = bytes | list[bytes] | dict[bytes, bytes] | dict[bytes, float]
"""Of a string; of a list or a set; of a hash; of a sorted set."""


def _table() -> list[int]:
    table = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = crc >> 1 ^ (_POLYNOMIAL if crc & 1 else 0)
        table.append(crc)
    return table


_CRC = _table()


def checksum(data: bytes) -> int:
    """Return the CRC-64 that Redis uses."""
    crc = 0
    for byte in data:
        crc = _CRC[crc & 0xFF ^ byte] ^ crc >> 8
    return crc


def packed(kind: int, value: Value) -> bytes:
    """Return the serialized form of a value."""
    parts = [bytes([_TYPES[kind]])]
    if isinstance(value, bytes):
        parts.append(_string(value))
    else:
        parts.append(_length(len(value)))
    if isinstance(value, list):
        parts += map(_string, value)
    if isinstance(value, dict):
        for name, other in value.items():
            parts += [
                _string(name),
                _SCORE.pack(other) if isinstance(other, float) else _string(other),
            ]
    data = b"".join(parts) + _VERSION.to_bytes(2, "little")
    return data + checksum(data).to_bytes(8, "little")


def _length(number: int) -> bytes:
    if number < 1 << 6:
        return bytes([number])
    if number < 1 << 14:
        return (number | 1 << 14).to_bytes(2, "big")
    if number < 1 << 32:
        return b"\x80" + number.to_bytes(4, "big")
    return b"\x81" + number.to_bytes(8, "big")


def _string(text: bytes) -> bytes:
    return _length(len(text)) + text


ERRORS = (ValueError, IndexError, struct.error)
"""What ``unpacked`` raises of malformed data, and of kinds of values that are not known."""


def is_intact(data: bytes) -> bool:
    """Whether data has a version that can be read, and a checksum that is right; 0 stands for none."""
    if len(data) <= 10:
        return False
    version, crc = int.from_bytes(data[-10:-8], "little"), int.from_bytes(data[-8:], "little")
    return version <= _NEWEST and crc in (0, checksum(data[:-8]))


def unpacked(data: bytes) -> tuple[int, Value]:
    """Return the kind of a serialized value that is intact, and the value; raises one of ``ERRORS``."""
    reader = _Reader(data[:-10])
    kind, value = reader.value()
    if reader.at != len(reader.data) or (kind != STRING and not value):
        raise ValueError("length")
    return kind, value


class _Reader:
    """Reads a serialized value."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def value(self) -> tuple[int, Value]:
        """Return the kind and the value."""
        kind = self._take(1)[0]
        if kind == 0:
            return STRING, self._string()
        if kind in (1, 14, 18):
            return LIST, self._list(kind)
        if kind in (2, 11, 20):
            return SET, _unique(self._set(kind))
        if kind in (3, 5, 12, 17):
            return ZSET, self._scores(kind)
        if kind in (4, 13, 16):
            return HASH, _pairs(self._elements(is_plain=kind == 4, each=2, is_listpack=kind == 16))
        raise ValueError("kind")

    def _list(self, kind: int) -> list[bytes]:
        if kind == 1:
            return self._elements(is_plain=True, each=1)
        found = []
        for _ in range(self._number()):
            is_packed = kind == 14 or self._number() == _PACKED
            node = self._string()
            found += _in_pack(node, is_listpack=kind == 18) if is_packed else [node]
        return found

    def _set(self, kind: int) -> list[bytes]:
        if kind != 11:
            return self._elements(is_plain=kind == 2, each=1)
        blob = self._string()
        width, count = struct.unpack_from("<II", blob)
        if width not in (2, 4, 8) or len(blob) != 8 + width * count:
            raise ValueError("integers")
        parts = (blob[at : at + width] for at in range(8, len(blob), width))
        return [b"%d" % int.from_bytes(part, "little", signed=True) for part in parts]

    def _scores(self, kind: int) -> dict[bytes, float]:
        if kind in (12, 17):
            pairs = _pairs(self._elements(is_plain=False, each=2, is_listpack=kind == 17))
            return {member: float(score) for member, score in pairs.items()}
        found = {}
        for _ in range(self._number()):
            member = self._string()
            found[member] = self._score() if kind == 5 else self._old_score()
        return found

    def _score(self) -> float:
        return float(_SCORE.unpack(self._take(8))[0])

    def _old_score(self) -> float:
        size = self._take(1)[0]
        return _OLD_SCORES[size] if size in _OLD_SCORES else float(self._take(size))

    def _elements(self, *, is_plain: bool, each: int, is_listpack: bool = True) -> list[bytes]:
        if is_plain:
            return [self._string() for _ in range(each * self._number())]
        return _in_pack(self._string(), is_listpack=is_listpack)

    def _take(self, size: int) -> bytes:
        part = self.data[self.at : self.at + size]
        if len(part) != size:
            raise ValueError("end")
        self.at += size
        return part

    def _head(self) -> tuple[int, bool]:
        """Return a length, or how a string is stored and that it is so."""
        first = self._take(1)[0]
        rest = first & 0x3F
        if first >> 6 == 0:
            return rest, False
        if first >> 6 == 1:
            return rest << 8 | self._take(1)[0], False
        if first >> 6 == 3:
            return rest, True
        return int.from_bytes(self._take(8 if first == 0x81 else 4), "big"), False

    def _number(self) -> int:
        number, is_special = self._head()
        if is_special:
            raise ValueError("length")
        return number

    def _string(self) -> bytes:
        number, is_special = self._head()
        if not is_special:
            return self._take(number)
        if number in _INTEGERS:
            form = struct.Struct(_INTEGERS[number])
            return b"%d" % int(form.unpack(self._take(form.size))[0])
        if number != _COMPRESSED:
            raise ValueError("string")
        size, whole = self._number(), self._number()
        return _decompressed(self._take(size), whole)


def _decompressed(data: bytes, size: int) -> bytes:
    """Return what LZF has compressed."""
    out = bytearray()
    at = 0
    while at < len(data):
        control = data[at]
        at += 1
        if control < 32:
            out += data[at : at + control + 1]
            at += control + 1
            continue
        length = control >> 5
        if length == 7:
            length += data[at]
            at += 1
        start = len(out) - ((control & 0x1F) << 8 | data[at]) - 1
        at += 1
        if start < 0 or len(out) > size:
            raise ValueError("compression")
        for index in range(start, start + length + 2):
            out.append(out[index])
    if len(out) != size:
        raise ValueError("compression")
    return bytes(out)


def _unique(members: list[bytes]) -> list[bytes]:
    if len(set(members)) != len(members):
        raise ValueError("repeated")
    return members


def _pairs(texts: list[bytes]) -> dict[bytes, bytes]:
    if len(texts) % 2:
        raise ValueError("pairs")
    return dict(zip(_unique(texts[::2]), texts[1::2], strict=True))


def _in_pack(blob: bytes, *, is_listpack: bool) -> list[bytes]:
    found = list(_in_listpack(blob) if is_listpack else _in_ziplist(blob))
    if int.from_bytes(blob[:4], "little") != len(blob):
        raise ValueError("pack")
    return found


def _signed(data: bytes) -> bytes:
    return b"%d" % int.from_bytes(data, "little", signed=True)


def _in_listpack(blob: bytes) -> Iterator[bytes]:
    at = 6
    while (first := blob[at]) != 0xFF:
        start = at
        at += 1
        if first < 0x80:
            yield b"%d" % first
        elif first < 0xC0:
            size = first & 0x3F
            yield blob[at : at + size]
            at += size
        elif first < 0xE0:
            number = (first & 0x1F) << 8 | blob[at]
            yield b"%d" % (number - (1 << 13) if number >> 12 else number)
            at += 1
        elif first < 0xF1:
            width = 1 if first < 0xF0 else 4
            size = (
                (first & 0x0F) << 8 | blob[at]
                if width == 1
                else int.from_bytes(blob[at : at + 4], "little")
            )
            at += width
            yield blob[at : at + size]
            at += size
        else:
            width = {0xF1: 2, 0xF2: 3, 0xF3: 4, 0xF4: 8}.get(first, 0)
            if not width:
                raise ValueError("listpack")
            yield _signed(blob[at : at + width])
            at += width
        at += _back_bytes(at - start)


def _back_bytes(size: int) -> int:
    """Return how many bytes a listpack has for the length of an element."""
    return 1 + sum(size > limit for limit in (127, 16382, 2097150, 268435454))


def _in_ziplist(blob: bytes) -> Iterator[bytes]:
    at = 10
    while blob[at] != 0xFF:
        at += 5 if blob[at] == 0xFE else 1  # the length of the element before it
        first = blob[at]
        at += 1
        if first >> 6 == 3:
            width = {0xC0: 2, 0xD0: 4, 0xE0: 8, 0xF0: 3, 0xFE: 1}.get(first, 0)
            if not width and not 0xF1 <= first <= 0xFD:
                raise ValueError("ziplist")
            yield _signed(blob[at : at + width]) if width else b"%d" % ((first & 0x0F) - 1)
            at += width
            continue
        if first >> 6 == 0:
            size = first & 0x3F
        elif first >> 6 == 1:
            size = (first & 0x3F) << 8 | blob[at]
            at += 1
        else:
            size = int.from_bytes(blob[at : at + 4], "big")
            at += 4
        yield blob[at : at + size]
        at += size
