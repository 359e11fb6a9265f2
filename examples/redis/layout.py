"""How keys, elements and scores are laid out in LMDB: headers, and names in an order of their own."""

from __future__ import annotations

import hashlib
import struct

from attrs import define

STRING, LIST, SET, ZSET, HASH, STREAM = range(6)
KINDS = ("string", "list", "set", "zset", "hash", "stream")
INT64 = range(-(2**63), 2**63)
DATABASES = 16
# An LMDB key may have 511 bytes; a longer name is stored as its beginning, which keeps the order,
# and its digest.
_MAX_NAME_BYTES = 480
_BEGINNING_BYTES = 200
_HEADER = struct.Struct("<BQQQQqI")
_HEADER_BYTES = _HEADER.size
_unpack_string = struct.Struct("<B8xQ24xI").unpack_from  # what matters of the header of a string
_LONG_BYTES = 4096  # of a value, from which a copy costs more than a view
_U64 = struct.Struct(">Q")  # big-endian, so that LMDB's order is that of the numbers
_LENGTH = struct.Struct("<I")
_SCORE = struct.Struct(">d")
_INDEX_BIAS = 2**63  # indexes of a list may be negative
_SIGN = 2**63


@define
class Header:
    """The metadata of a key, and the value of a string.

    Attributes:
        key: Its name.
        kind: STRING, LIST, ...
        id: Its number, which never changes and is never reused.
        expires_at: Unix time in ms; 0: never.
        version: Changes with every change of the key.
        count: The number of elements of a collection; of a string, 1 if a part of it was changed.
        first: The index of a list's first element; pushing to its left makes it smaller.
        value: The value of a string; of a stream, its last ID and the like.
    """

    key: bytes
    kind: int
    id: int
    expires_at: int = 0
    version: int = 0
    count: int = 0
    first: int = 0
    value: bytes = b""

    @property
    def prefix(self) -> bytes:
        """The beginning of the LMDB keys of all its elements and scores."""
        return _U64.pack(self.id)

    def packed(self) -> bytes:
        """Return the header as it is stored."""
        head = _HEADER.pack(
            self.kind,
            self.id,
            self.expires_at,
            self.version,
            self.count,
            self.first,
            len(self.key),
        )
        return head + self.key + self.value


def unpack_header(key: bytes, blob: bytes | memoryview) -> Header:
    """Return a stored header."""
    kind, number, expires_at, version, count, first, length = _HEADER.unpack_from(blob)
    value = bytes(blob[_HEADER_BYTES + length :])
    return Header(bytes(key), kind, number, expires_at, version, count, first, value)


def string_in(blob: bytes | memoryview) -> bytes | memoryview | None:
    """Return the value of a stored string that does not expire, None for other headers.

    A long one is a view if the header is one.
    """
    kind, expires_at, length = _unpack_string(blob)
    if kind != STRING or expires_at:
        return None
    value = blob[_HEADER_BYTES + length :]
    return value if len(value) > _LONG_BYTES else bytes(value)


def lmdb_name(text: bytes) -> bytes:
    """Return a name as part of an LMDB key."""
    if len(text) <= _MAX_NAME_BYTES:
        return b"\0" + text
    return b"\1" + text[:_BEGINNING_BYTES] + hashlib.sha256(text).digest()


def pack_number(number: int) -> bytes:
    """Return a number as an LMDB key."""
    return _U64.pack(number)


def unpack_number(key: bytes) -> int:
    """Return the number at the beginning of an LMDB key."""
    return int(_U64.unpack_from(key)[0])


def expiry_key(header: Header, database: int) -> bytes:
    """Return the LMDB key of a header among the expiries."""
    name = lmdb_name(header.key)
    return _U64.pack(header.expires_at) + bytes([2 * database + name[0]]) + name[1:]


def database_of(key: bytes | memoryview) -> int:
    """Return the number of the database in an LMDB key of the expiries."""
    return key[_U64.size] // 2


def element_key(header: Header, field: bytes) -> bytes:
    """Return the LMDB key of an element of a hash, a set or a sorted set."""
    return header.prefix + lmdb_name(field)


def pack_value(field: bytes, value: bytes) -> bytes:
    """Return an element's value as it is stored: with the field's name if the key has not all of it."""
    if len(field) <= _MAX_NAME_BYTES:
        return value
    return _LENGTH.pack(len(field)) + field + value


def unpack_value(field: bytes, blob: bytes) -> bytes:
    """Return an element's value."""
    return blob if len(field) <= _MAX_NAME_BYTES else blob[_LENGTH.size + len(field) :]


def unpack_element(key: bytes, blob: bytes) -> tuple[bytes, bytes]:
    """Return an element's name and value from its LMDB key and value."""
    short = key[_U64.size :]
    if short[:1] == b"\0":
        return short[1:], blob
    (length,) = _LENGTH.unpack_from(blob)
    return blob[_LENGTH.size : _LENGTH.size + length], blob[_LENGTH.size + length :]


def index_key(header: Header, index: int) -> bytes:
    """Return the LMDB key of a list's element."""
    return header.prefix + _U64.pack(header.first + index + _INDEX_BIAS)


def pack_score(score: float) -> bytes:
    """Return a score as the value of an element."""
    return _SCORE.pack(score)


def unpack_score(blob: bytes) -> float:
    """Return the score in the value of an element."""
    return float(_SCORE.unpack(blob)[0])


def score_key(header: Header, member: bytes, score: float) -> bytes:
    """Return the LMDB key of a member among the scores: ordered by score, then by member."""
    (bits,) = _U64.unpack(_SCORE.pack(score + 0.0))  # -0.0 and 0.0 are one score
    bits = bits ^ (2**64 - 1) if bits & _SIGN else bits | _SIGN
    return header.prefix + _U64.pack(bits) + lmdb_name(member)


def score_in(key: bytes) -> float:
    """Return the score in an LMDB key."""
    (bits,) = _U64.unpack(key[_U64.size : 2 * _U64.size])
    bits = bits & ~_SIGN if bits & _SIGN else bits ^ (2**64 - 1)
    return float(_SCORE.unpack(_U64.pack(bits))[0])


def parse_int(text: bytes) -> int | None:
    """Return the 64-bit integer that a text is in its shortest form, or None."""
    try:
        number = int(text)
    except ValueError:
        return None
    return number if b"%d" % number == text and number in INT64 else None
