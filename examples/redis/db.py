"""Redis' keys in LMDB, shared by all workers.

Five tables: ``keys`` has a header for each key (and the value of a string); ``elements`` the elements
of collections; ``scores`` the members of sorted sets by score; ``ids`` the keys by their number, for
SCAN; ``expiries`` the keys by the time when they expire.

One command is one transaction; the commands of a MULTI share one. So a killed worker loses only
writes that it had not acknowledged.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from types import TracebackType

import lmdb
from layout import (
    STRING,
    ZSET,
    Header,
    element_key,
    expiry_key,
    index_key,
    lmdb_name,
    pack_number,
    pack_score,
    pack_value,
    score_in,
    score_key,
    unpack_element,
    unpack_header,
    unpack_number,
    unpack_score,
    unpack_value,
)

from linepool import ClientError

READERS = 2048  # slots in LMDB's table of readers: more than there can be workers
_EXPIRED_PER_WRITE = 2  # expired keys that one write removes
_WRONG_TYPE = "Operation against a key holding the wrong kind of value"
_FULL = "command not allowed when used memory > 'maxmemory'."


class Db:
    """The store. Open it after the fork, once per process."""

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
        self._env.reader_check()  # frees the slots of killed workers
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
        """Return the block for reads of one snapshot: ``with db.read() as t``."""
        return Use(self._open, self, write=False)

    def write(self) -> Use:
        """Return the block for an atomic change: ``with db.write() as t``."""
        return Use(self._open, self, write=True)

    @contextlib.contextmanager
    def together(self) -> Iterator[Txn]:
        """Run all reads and writes in the block in one transaction."""
        with self.write() as txn:
            self._open = txn
            try:
                yield txn
            finally:
                self._open = None

    def begin(self, *, write: bool) -> lmdb.Transaction:
        """Begin an LMDB transaction."""
        return self._env.begin(write=write)


class Use:
    """The block of one command: its own transaction, or part of the one that is open."""

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
                except (lmdb.MapFullError, lmdb.BadTxnError):  # full now, or earlier in a MULTI
                    raise ClientError(_FULL, code="OOM") from None
                return
            self._raw.abort()
        if kind is not None and issubclass(kind, lmdb.MapFullError):
            raise ClientError(_FULL, code="OOM") from None


class Txn:
    """A transaction: reads and changes of keys and their elements."""

    def __init__(self, db: Db, raw: lmdb.Transaction, *, write: bool) -> None:
        self._db = db
        self._raw = raw
        self._write = write
        self.now_ms = time.time_ns() // 1_000_000
        if write:
            self._sweep()

    def find(self, key: bytes) -> Header | None:
        """Return a key's header, or None if it does not exist or has expired."""
        blob = self._raw.get(lmdb_name(key), db=self._db.keys)
        if blob is None:
            return None
        header = unpack_header(key, bytes(blob))
        if 0 < header.expires_at <= self.now_ms:
            if self._write:
                self.remove(header)
            return None
        return header

    def typed(self, key: bytes, kind: int) -> Header | None:
        """Return a key's header if it is of the kind that a command is for.

        Raises:
            ClientError: The key is of another kind.
        """
        header = self.find(key)
        if header is not None and header.kind != kind:
            raise ClientError(_WRONG_TYPE, code="WRONGTYPE")
        return header

    def made(self, key: bytes, kind: int) -> Header:
        """Return a key's header, a new one if the key does not exist."""
        header = self.typed(key, kind)
        return header or Header(key, kind, self.next_number())

    def save(self, header: Header) -> None:
        """Store a changed header; an empty collection is deleted."""
        if header.kind != STRING and not header.count:
            self.remove(header)
            return
        header.version = self.next_number()
        self._raw.put(lmdb_name(header.key), header.packed(), db=self._db.keys)
        self._raw.put(pack_number(header.id), header.key, db=self._db.ids)

    def expire(self, header: Header, at_ms: int) -> None:
        """Set when a key expires (0: never), and save it."""
        if header.expires_at:
            self._raw.delete(expiry_key(header), db=self._db.expiries)
        header.expires_at = at_ms
        if at_ms:
            self._raw.put(expiry_key(header), header.key, db=self._db.expiries)
        self.save(header)

    def remove(self, header: Header) -> None:
        """Delete a key with all its elements."""
        self.clear(header)
        if header.expires_at:
            self._raw.delete(expiry_key(header), db=self._db.expiries)
        self._raw.delete(lmdb_name(header.key), db=self._db.keys)
        self._raw.delete(pack_number(header.id), db=self._db.ids)

    def clear(self, header: Header) -> None:
        """Delete all elements of a key."""
        if header.kind == STRING:
            return
        tables = (self._db.elements, self._db.scores)
        for table in tables[: 1 + (header.kind == ZSET)]:
            with self._raw.cursor(table) as cursor:
                more = cursor.set_range(header.prefix)
                while more and cursor.key().startswith(header.prefix):
                    more = cursor.delete()
        header.count = header.first = 0

    def all_keys(self, after: int = 0) -> Iterator[tuple[int, Header]]:
        """Yield the keys that have not expired, by their numbers, from the one after ``after``."""
        with self._raw.cursor(self._db.ids) as cursor:
            if not cursor.set_range(pack_number(after + 1)):
                return
            for number, key in cursor:
                blob = self._raw.get(lmdb_name(key), db=self._db.keys)
                header = unpack_header(key, bytes(blob))
                if not 0 < header.expires_at <= self.now_ms:
                    yield unpack_number(number), header

    def count(self) -> int:
        """Return the number of keys that have not expired."""
        expired = 0
        with self._raw.cursor(self._db.expiries) as cursor:
            for key in cursor.iternext(keys=True, values=False):
                if unpack_number(key) > self.now_ms:
                    break
                expired += 1
        return int(self._raw.stat(self._db.ids)["entries"]) - expired

    def drop_all(self) -> None:
        """Delete every key."""
        db = self._db
        for table in (db.keys, db.elements, db.scores, db.ids, db.expiries):
            self._raw.drop(table, delete=False)

    def next_number(self) -> int:
        """Return a number that was never returned before."""
        number = self.last_number() + 1
        self._raw.put(b"number", pack_number(number))
        return number

    def last_number(self) -> int:
        """Return the last number that ``next_number`` returned."""
        blob = self._raw.get(b"number")
        return unpack_number(blob) if blob else 0

    def get(self, header: Header, field: bytes) -> bytes | None:
        """Return the value of an element of a hash or a set, or None."""
        blob = self._raw.get(element_key(header, field), db=self._db.elements)
        return None if blob is None else unpack_value(field, bytes(blob))

    def put(self, header: Header, field: bytes, value: bytes = b"") -> bool:
        """Store an element of a hash or a set (``value`` b""); return whether it is new."""
        key = element_key(header, field)
        value = pack_value(field, value)
        new = self._raw.put(key, value, db=self._db.elements, overwrite=False)
        if new:
            header.count += 1
        else:
            self._raw.put(key, value, db=self._db.elements)
        return bool(new)

    def pop(self, header: Header, field: bytes) -> bool:
        """Delete an element of a hash or a set; return whether it existed."""
        existed = bool(self._raw.delete(element_key(header, field), db=self._db.elements))
        header.count -= existed
        return existed

    def items(self, header: Header | None) -> list[tuple[bytes, bytes]]:
        """Return all elements of a hash or a set, with their values."""
        if header is None:
            return []
        found = []
        with self._raw.cursor(self._db.elements) as cursor:
            more = cursor.set_range(header.prefix)
            while more and cursor.key().startswith(header.prefix):
                found.append(unpack_element(bytes(cursor.key()), bytes(cursor.value())))
                more = cursor.next()
        return found

    def members(self, header: Header | None) -> set[bytes]:
        """Return the members of a set."""
        return {field for field, _ in self.items(header)}

    def at(self, header: Header, index: int) -> bytes:
        """Return the element of a list at an index from 0."""
        return bytes(self._raw.get(index_key(header, index), db=self._db.elements))

    def set_at(self, header: Header, index: int, value: bytes) -> None:
        """Replace the element of a list at an index."""
        self._raw.put(index_key(header, index), value, db=self._db.elements)

    def push(self, header: Header, value: bytes, *, left: bool) -> None:
        """Add an element at an end of a list."""
        if left:
            header.first -= 1
        header.count += 1
        self.set_at(header, 0 if left else header.count - 1, value)

    def pop_end(self, header: Header, *, left: bool) -> bytes:
        """Remove and return the element at an end of a list, which must not be empty."""
        key = index_key(header, 0 if left else header.count - 1)
        value = bytes(self._raw.pop(key, db=self._db.elements))
        header.first += left
        header.count -= 1
        return value

    def slice(self, header: Header | None, first: int, last: int) -> list[bytes]:
        """Return the elements of a list from one index to another, both included."""
        if header is None or last < first:
            return []
        with self._raw.cursor(self._db.elements) as cursor:
            cursor.set_key(index_key(header, first))
            values = cursor.iternext(keys=False, values=True)
            return [bytes(value) for value, _ in zip(values, range(first, last + 1), strict=False)]

    def replace_list(self, header: Header, values: list[bytes]) -> None:
        """Replace all elements of a list."""
        self.clear(header)
        for value in values:
            self.push(header, value, left=False)

    def score(self, header: Header, member: bytes) -> float | None:
        """Return the score of a sorted set's member, or None."""
        blob = self.get(header, member)
        return None if blob is None else unpack_score(blob)

    def set_score(self, header: Header, member: bytes, score: float) -> bool:
        """Store a member of a sorted set; return whether it is new."""
        old = self.score(header, member)
        if old is not None:
            self._raw.delete(score_key(header, member, old), db=self._db.scores)
        self._raw.put(score_key(header, member, score), member, db=self._db.scores)
        return self.put(header, member, pack_score(score))

    def pop_score(self, header: Header, member: bytes) -> bool:
        """Remove a member of a sorted set; return whether it existed."""
        score = self.score(header, member)
        if score is None:
            return False
        self._raw.delete(score_key(header, member, score), db=self._db.scores)
        return self.pop(header, member)

    def ranked(self, header: Header | None) -> list[tuple[bytes, float]]:
        """Return all members of a sorted set with their scores, lowest first."""
        if header is None:
            return []
        found = []
        with self._raw.cursor(self._db.scores) as cursor:
            more = cursor.set_range(header.prefix)
            while more and cursor.key().startswith(header.prefix):
                found.append((bytes(cursor.value()), score_in(bytes(cursor.key()))))
                more = cursor.next()
        return found

    def _sweep(self) -> None:
        """Delete a few expired keys."""
        for _ in range(_EXPIRED_PER_WRITE):
            with self._raw.cursor(self._db.expiries) as cursor:
                if not cursor.first() or unpack_number(cursor.key()) > self.now_ms:
                    return
                key = bytes(cursor.value())
            self.find(key)
