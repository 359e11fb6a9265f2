"""BITFIELD: integers of any width within a string."""

from __future__ import annotations

from application import app
from attrs import frozen
from bits import bits_within
from db import Db
from layout import STRING, parse_int
from strings import MAX_STRING_BYTES, changed, value_of

from linepool import ClientError, Verb

_SYNTAX = "syntax error"
_WRONG_TYPE = (
    "Invalid bitfield type. Use something like i16 u8. Note that u64 is not supported but i64 is."
)
_OVERFLOWS = (b"WRAP", b"SAT", b"FAIL")


@frozen
class Field:
    """The place of an integer, and its type.

    Attributes:
        width: In bits.
        at: The offset of its first bit.
    """

    is_signed: bool
    width: int
    at: int

    @property
    def bounds(self) -> tuple[int, int]:
        """The smallest and the largest value."""
        if self.is_signed:
            return -(1 << self.width - 1), (1 << self.width - 1) - 1
        return 0, (1 << self.width) - 1

    @property
    def stop(self) -> int:
        """The offset of the bit behind its last one."""
        return self.at + self.width

    def read(self, text: bytes | bytearray) -> int:
        """Return its value; beyond the string, all bits are 0."""
        size = (self.stop + 7) // 8
        part = bytes(text[self.at // 8 : size]).ljust(size - self.at // 8, b"\0")
        number, _ = bits_within(part, self.at % 8, self.at % 8 + self.width)
        return self.wrapped(number)

    def write(self, text: bytearray, number: int) -> None:
        """Replace its value in a string that is long enough."""
        first, size = self.at // 8, (self.stop + 7) // 8
        shift = -self.stop % 8
        mask = (1 << self.width) - 1
        whole = int.from_bytes(text[first:size], "big")
        whole = whole & ~(mask << shift) | (number & mask) << shift
        text[first:size] = whole.to_bytes(size - first, "big")

    def wrapped(self, number: int) -> int:
        """Return the number that the lowest bits of another are."""
        number &= (1 << self.width) - 1
        is_negative = self.is_signed and number >> self.width - 1
        return number - (1 << self.width) if is_negative else number

    def fitted(self, number: int, overflow: bytes) -> int | None:
        """Return a number within the bounds; None: it is refused."""
        least, most = self.bounds
        if least <= number <= most:
            return number
        if overflow == b"WRAP":
            return self.wrapped(number)
        return None if overflow == b"FAIL" else least if number < least else most


@frozen
class Operation:
    """A GET, SET or INCRBY, with its number and what is done with one that is too large."""

    name: bytes
    field: Field
    number: int
    overflow: bytes

    def run(self, text: bytearray) -> int | None:
        """Do it; return the value, for SET the old one, or None: the new one is refused."""
        old = self.field.read(text)
        if self.name == b"GET":
            return old
        number = self.number + (old if self.name == b"INCRBY" else 0)
        if self.name == b"SET" and not self.field.is_signed:
            number %= 2**64
        new = self.field.fitted(number, self.overflow)
        if new is not None:
            self.field.write(text, new)
        return old if self.name == b"SET" and new is not None else new


def field_of(kind: bytes, place: bytes) -> Field:
    """Return a field from its type, such as ``u8``, and its place: ``16``, or ``#2`` of its width.

    Raises:
        ClientError: One of them is wrong.
    """
    width = parse_int(kind[1:])
    is_signed = kind[:1] == b"i"
    if kind[:1] not in (b"i", b"u") or width is None or not 1 <= width <= 63 + is_signed:
        raise ClientError(_WRONG_TYPE)
    at = parse_int(place.removeprefix(b"#"))
    if at is not None and place.startswith(b"#"):
        at *= width
    if at is None or not 0 <= at < MAX_STRING_BYTES * 8:
        raise ClientError("bit offset is not an integer or out of range")
    return Field(is_signed, width, at)


def parsed(words: tuple[bytes, ...]) -> list[Operation]:
    """Return the operations of a BITFIELD.

    Raises:
        ClientError: The words are wrong.
    """
    found = []
    overflow = b"WRAP"
    left = list(words)
    while left:
        name = left.pop(0).upper()
        if name == b"OVERFLOW" and left:
            overflow = left.pop(0).upper()
            if overflow not in _OVERFLOWS:
                raise ClientError("Invalid OVERFLOW type specified")
            continue
        count = {b"GET": 2, b"SET": 3, b"INCRBY": 3}.get(name, len(left) + 1)
        if len(left) < count:
            raise ClientError(_SYNTAX)
        kind, place, *values = left[:count]
        del left[:count]
        field = field_of(kind, place)
        number = parse_int(values[0]) if values else 0
        if number is None:
            raise ClientError("value is not an integer or out of range")
        found.append(Operation(name, field, number, overflow))
    return found


@app.handler("BITFIELD", flags="write denyoom")
def bitfield(key: bytes, *words: bytes, db: Db) -> list[int | None]:
    """Read and change integers within a string: BITFIELD key [GET|SET|INCRBY|OVERFLOW ...]."""
    operations = parsed(words)
    changes = [one.field.stop for one in operations if one.name != b"GET"]
    if not changes:
        return read_only(key, operations, db)
    with db.write() as t:
        header = t.typed(key, STRING)
        before = header.value if header else b""
        text = bytearray(before.ljust((max(changes) + 7) // 8, b"\0"))
        replies = [one.run(text) for one in operations]
        if text != before:
            changed(t, header, key, bytes(text), is_edited=True)
            if any(
                reply is not None
                for one, reply in zip(operations, replies, strict=True)
                if one.name != b"GET"
            ):
                t.notify("setbit", key)
    return replies


@app.handler(flags="readonly fast")
def bitfield_ro(key: bytes, *words: bytes, db: Db, verb: Verb) -> list[int | None]:
    """Read integers within a string: BITFIELD_RO key [GET type offset ...]."""
    operations = parsed(words)
    if any(one.name != b"GET" for one in operations):
        raise ClientError(f"{verb} only supports the GET subcommand")
    return read_only(key, operations, db)


def read_only(key: bytes, operations: list[Operation], db: Db) -> list[int | None]:
    """Return what operations that are all GET return."""
    with db.read() as t:
        text = value_of(t, key) or b""
    return [one.field.read(text) for one in operations]
