"""Redis' keys in LMDB, shared by all workers.

Five tables: ``keys`` has a header for each key (and the value of a string); ``elements`` what the
collections hold; ``scores`` the members of sorted sets by score; ``ids`` the keys by their number,
for SCAN; ``expiries`` the keys by the time when they end.

One command is one transaction; the commands of a MULTI share one. So a worker that is killed takes
nothing with it but what it had not acknowledged.
"""

from __future__ import annotations

import contextlib
import hashlib
import struct
import time
from collections.abc import Iterator
from types import TracebackType

import lmdb
from attrs import define

from linepool import ClientError

STRING, LIST, SET, ZSET, HASH = range(5)
KINDS = ("string", "list", "set", "zset", "hash")
READERS = 2048  # slots in LMDB's table of readers: more than there can be workers
LONGEST = 480  # bytes of a name that stands in an LMDB key as it is; those may have 511
_KEPT = 200  # bytes of a longer name that stand before its digest, for the order
_HEAD = struct.Struct("<BQQQQqI")
_U64 = struct.Struct(">Q")
_LENGTH = struct.Struct("<I")
_SCORE = struct.Struct(">d")
INT64 = range(-(2**63), 2**63)
_BIAS = 2**63
_SIGN = 2**63
_SWEPT = 2  # expired keys that one write looks for
_WRONG_TYPE = "Operation against a key holding the wrong kind of value"
_FULL = "command not allowed when used memory > 'maxmemory'."


@define
class Header:
    """What is known of a key.

    Attributes:
        key: Its name.
        kind: STRING, LIST, ...
        id: Its number; it never changes and is never used again.
        expires_at: Unix time in ms; 0: never.
        version: Changes with every change of the key.
        count: How many elements a collection has.
        first: The place of a list's first element.
        value: That of a string.
    """

    key: bytes
    kind: int
    id: int
    expires_at: int = 0
    version: int = 0
    count: int = 0
    first: int = 0
    value: bytes = b""


class Db:
    """The store; to be opened after the fork, once in each process."""

    def __init__(self, path: str, size_bytes: int) -> None:
        self._env = lmdb.open(
            path,
            map_size=size_bytes,
            max_readers=READERS,
            max_dbs=5,
            sync=False,
            metasync=False,
            writemap=True,
        )
        self._env.reader_check()  # a killed worker may have left its slot taken
        self.keys = self._env.open_db(b"keys")
        self.elements = self._env.open_db(b"elements")
        self.scores = self._env.open_db(b"scores")
        self.ids = self._env.open_db(b"ids")
        self.expiries = self._env.open_db(b"expiries")
        self._open: Txn | None = None

    def close(self) -> None:
        """Close the store."""
        self._env.close()

    def read(self) -> Use:
        """Look at one snapshot: ``with db.read() as t``."""
        return Use(self._open, self, write=False)

    def write(self) -> Use:
        """Change something, with nobody else's change in between: ``with db.write() as t``."""
        return Use(self._open, self, write=True)

    @contextlib.contextmanager
    def together(self) -> Iterator[Txn]:
        """Make one transaction of all reads and writes in the block."""
        with self.write() as txn:
            self._open = txn
            try:
                yield txn
            finally:
                self._open = None

    def begin(self, *, write: bool) -> lmdb.Transaction:
        """Begin a transaction of LMDB."""
        return self._env.begin(write=write)


class Use:
    """The block of one command: a transaction of its own, or a part of the one that is open."""

    def __init__(self, outer: Txn | None, db: Db, *, write: bool) -> None:
        self._outer = outer
        self._db = db
        self._write = write

    def __enter__(self) -> Txn:
        if self._outer is not None:
            return self._outer
        self._raw = self._db.begin(write=self._write)
        return Txn(self._db, self._raw, write=self._write)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._outer is None:
            if kind is None and self._write:
                try:
                    self._raw.commit()
                except (lmdb.MapFullError, lmdb.BadTxnError):  # full now, or before in a MULTI
                    raise ClientError(_FULL, code="OOM") from None
                return
            self._raw.abort()
        if kind is not None and issubclass(kind, lmdb.MapFullError):
            raise ClientError(_FULL, code="OOM") from None


class Txn:
    """What a command does to keys and their elements."""

    def __init__(self, db: Db, raw: lmdb.Transaction, *, write: bool) -> None:
        self._db = db
        self._raw = raw
        self._write = write
        self.now_ms = time.time_ns() // 1_000_000
        if write:
            self._sweep()

    # -- keys

    def find(self, key: bytes) -> Header | None:
        """Return a key's header, or None: there is none, or it has expired."""
        blob = self._raw.get(name(key), db=self._db.keys)
        if blob is None:
            return None
        header = _unpacked(key, bytes(blob))
        if 0 < header.expires_at <= self.now_ms:
            if self._write:
                self.remove(header)
            return None
        return header

    def typed(self, key: bytes, kind: int) -> Header | None:
        """Return a key's header, of the kind that a command is for.

        Raises:
            ClientError: The key holds another kind.
        """
        header = self.find(key)
        if header is not None and header.kind != kind:
            raise ClientError(_WRONG_TYPE, code="WRONGTYPE")
        return header

    def made(self, key: bytes, kind: int) -> Header:
        """Return a key's header; a new one, if there is none."""
        header = self.typed(key, kind)
        return header or Header(key, kind, self.next_number())

    def save(self, header: Header) -> None:
        """Store a header that was changed; a collection without elements goes."""
        if header.kind != STRING and not header.count:
            self.remove(header)
            return
        header.version = self.next_number()
        short = name(header.key)
        head = _HEAD.pack(
            header.kind,
            header.id,
            header.expires_at,
            header.version,
            header.count,
            header.first,
            len(header.key),
        )
        self._raw.put(short, head + header.key + header.value, db=self._db.keys)
        self._raw.put(_U64.pack(header.id), header.key, db=self._db.ids)

    def expire(self, header: Header, at_ms: int) -> None:
        """Set when a key ends (0: never), and save it."""
        if header.expires_at:
            self._raw.delete(_U64.pack(header.expires_at) + name(header.key), db=self._db.expiries)
        header.expires_at = at_ms
        if at_ms:
            self._raw.put(_U64.pack(at_ms) + name(header.key), header.key, db=self._db.expiries)
        self.save(header)

    def remove(self, header: Header) -> None:
        """Drop a key with all that it holds."""
        self.clear(header)
        if header.expires_at:
            self._raw.delete(_U64.pack(header.expires_at) + name(header.key), db=self._db.expiries)
        self._raw.delete(name(header.key), db=self._db.keys)
        self._raw.delete(_U64.pack(header.id), db=self._db.ids)

    def clear(self, header: Header) -> None:
        """Drop all elements of a key."""
        if header.kind == STRING:
            return
        tables = (self._db.elements, self._db.scores)
        for table in tables[: 1 + (header.kind == ZSET)]:
            with self._raw.cursor(table) as cursor:
                more = cursor.set_range(_U64.pack(header.id))
                while more and cursor.key().startswith(_U64.pack(header.id)):
                    more = cursor.delete()
        header.count = header.first = 0

    def all_keys(self, behind: int = 0) -> Iterator[tuple[int, Header]]:
        """Yield the keys that live, with their numbers, in the order of these."""
        with self._raw.cursor(self._db.ids) as cursor:
            if not cursor.set_range(_U64.pack(behind + 1)):
                return
            for number, key in cursor:
                header = _unpacked(key, bytes(self._raw.get(name(key), db=self._db.keys)))
                if not 0 < header.expires_at <= self.now_ms:
                    yield _U64.unpack(number)[0], header

    def count(self) -> int:
        """Return how many keys live."""
        expired = 0
        with self._raw.cursor(self._db.expiries) as cursor:
            for moment in cursor.iternext(keys=True, values=False):
                if _U64.unpack(moment[:8])[0] > self.now_ms:
                    break
                expired += 1
        return int(self._raw.stat(self._db.ids)["entries"]) - expired

    def drop_all(self) -> None:
        """Drop every key."""
        db = self._db
        for table in (db.keys, db.elements, db.scores, db.ids, db.expiries):
            self._raw.drop(table, delete=False)

    def next_number(self) -> int:
        """Return a number that was never given before."""
        number = self.last_number() + 1
        self._raw.put(b"number", _U64.pack(number))
        return number

    def last_number(self) -> int:
        """Return the number that was given last."""
        blob = self._raw.get(b"number")
        return int(_U64.unpack(blob)[0]) if blob else 0

    # -- elements: of hashes (field, value) and sets (member, b"")

    def get(self, header: Header, field: bytes) -> bytes | None:
        """Return an element's value, or None."""
        blob = self._raw.get(_U64.pack(header.id) + name(field), db=self._db.elements)
        return None if blob is None else _value(field, bytes(blob))

    def put(self, header: Header, field: bytes, value: bytes = b"") -> bool:
        """Store an element; return whether it is new."""
        key = _U64.pack(header.id) + name(field)
        if len(field) > LONGEST:
            value = _LENGTH.pack(len(field)) + field + value
        new = self._raw.put(key, value, db=self._db.elements, overwrite=False)
        if new:
            header.count += 1
        else:
            self._raw.put(key, value, db=self._db.elements)
        return bool(new)

    def pop(self, header: Header, field: bytes) -> bool:
        """Drop an element; return whether it was there."""
        key = _U64.pack(header.id) + name(field)
        there = bool(self._raw.delete(key, db=self._db.elements))
        header.count -= there
        return there

    def items(self, header: Header | None) -> list[tuple[bytes, bytes]]:
        """Return all elements with their values."""
        if header is None:
            return []
        found = []
        with self._raw.cursor(self._db.elements) as cursor:
            more = cursor.set_range(_U64.pack(header.id))
            while more and cursor.key().startswith(_U64.pack(header.id)):
                found.append(_full(bytes(cursor.key())[8:], bytes(cursor.value())))
                more = cursor.next()
        return found

    def members(self, header: Header | None) -> set[bytes]:
        """Return the members of a set."""
        return {field for field, _ in self.items(header)}

    # -- elements of lists, by place

    def at(self, header: Header, index: int) -> bytes:
        """Return the element of a list at an index from 0."""
        return bytes(self._raw.get(_place(header, index), db=self._db.elements))

    def set_at(self, header: Header, index: int, value: bytes) -> None:
        """Replace the element of a list at an index."""
        self._raw.put(_place(header, index), value, db=self._db.elements)

    def push(self, header: Header, value: bytes, *, left: bool) -> None:
        """Put an element at an end of a list."""
        if left:
            header.first -= 1
        header.count += 1
        self.set_at(header, 0 if left else header.count - 1, value)

    def take(self, header: Header, *, left: bool) -> bytes:
        """Take the element at an end of a list that has some."""
        key = _place(header, 0 if left else header.count - 1)
        value = bytes(self._raw.pop(key, db=self._db.elements))
        header.first += left
        header.count -= 1
        return value

    def slice(self, header: Header | None, first: int, last: int) -> list[bytes]:
        """Return the elements of a list from one index to another, both included."""
        if header is None or last < first:
            return []
        with self._raw.cursor(self._db.elements) as cursor:
            cursor.set_key(_place(header, first))
            values = cursor.iternext(keys=False, values=True)
            return [bytes(value) for value, _ in zip(values, range(first, last + 1), strict=False)]

    def replace_list(self, header: Header, values: list[bytes]) -> None:
        """Give a list other elements."""
        self.clear(header)
        for value in values:
            self.push(header, value, left=False)

    # -- members of sorted sets

    def score(self, header: Header, member: bytes) -> float | None:
        """Return a member's score, or None."""
        blob = self.get(header, member)
        return None if blob is None else float(_SCORE.unpack(blob)[0])

    def set_score(self, header: Header, member: bytes, score: float) -> bool:
        """Store a member; return whether it is new."""
        old = self.score(header, member)
        if old is not None:
            self._raw.delete(_ranked(header, member, old), db=self._db.scores)
        self._raw.put(_ranked(header, member, score), member, db=self._db.scores)
        return self.put(header, member, _SCORE.pack(score))

    def pop_score(self, header: Header, member: bytes) -> bool:
        """Drop a member; return whether it was there."""
        score = self.score(header, member)
        if score is None:
            return False
        self._raw.delete(_ranked(header, member, score), db=self._db.scores)
        return self.pop(header, member)

    def ranked(self, header: Header | None) -> list[tuple[bytes, float]]:
        """Return all members with their scores, lowest first."""
        if header is None:
            return []
        found = []
        with self._raw.cursor(self._db.scores) as cursor:
            more = cursor.set_range(_U64.pack(header.id))
            while more and cursor.key().startswith(_U64.pack(header.id)):
                found.append((bytes(cursor.value()), _score_in(bytes(cursor.key()))))
                more = cursor.next()
        return found

    def _sweep(self) -> None:
        """Drop a few keys that have expired."""
        for _ in range(_SWEPT):
            with self._raw.cursor(self._db.expiries) as cursor:
                if not cursor.first() or _U64.unpack(cursor.key()[:8])[0] > self.now_ms:
                    return
                key = bytes(cursor.value())
            self.find(key)


def name(text: bytes) -> bytes:
    """Return a name as it stands in an LMDB key: a long one by its beginning and its digest."""
    if len(text) <= LONGEST:
        return b"\0" + text
    return b"\1" + text[:_KEPT] + hashlib.sha256(text).digest()


def whole(text: bytes) -> int | None:
    """Return the 64-bit number that a text is, written without any frills; or None."""
    try:
        number = int(text)
    except ValueError:
        return None
    return number if b"%d" % number == text and number in INT64 else None


def _unpacked(key: bytes, blob: bytes) -> Header:
    kind, number, expires_at, version, count, first, length = _HEAD.unpack_from(blob)
    value = blob[_HEAD.size + length :]
    return Header(key, kind, number, expires_at, version, count, first, value)


def _value(field: bytes, blob: bytes) -> bytes:
    return blob if len(field) <= LONGEST else blob[_LENGTH.size + len(field) :]


def _full(short: bytes, blob: bytes) -> tuple[bytes, bytes]:
    """Return an element's name and value from its LMDB key and value."""
    if short[:1] == b"\0":
        return short[1:], blob
    (length,) = _LENGTH.unpack_from(blob)
    return blob[_LENGTH.size : _LENGTH.size + length], blob[_LENGTH.size + length :]


def _place(header: Header, index: int) -> bytes:
    return _U64.pack(header.id) + _U64.pack(header.first + index + _BIAS)


def _ranked(header: Header, member: bytes, score: float) -> bytes:
    """Return the key of a member among the scores: its order is theirs, then the members'."""
    (bits,) = _U64.unpack(_SCORE.pack(score + 0.0))  # -0.0 and 0.0 are one score
    bits = bits ^ (2**64 - 1) if bits & _SIGN else bits | _SIGN
    return _U64.pack(header.id) + _U64.pack(bits) + name(member)


def _score_in(key: bytes) -> float:
    (bits,) = _U64.unpack(key[8:16])
    bits = bits & ~_SIGN if bits & _SIGN else bits ^ (2**64 - 1)
    return float(_SCORE.unpack(_U64.pack(bits))[0])
