"""Redis' keys in LMDB, shared by all workers.

Five tables: ``keys`` has a header for each key (and the value of a string); ``elements`` the elements
of collections; ``scores`` the members of sorted sets by score; ``ids`` the keys by their number, for
SCAN; ``expiries`` the keys by the time when they expire.

The commands that are answered together share one transaction, see ``Db``. So a killed worker loses only
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
    string_in,
    unpack_element,
    unpack_header,
    unpack_number,
    unpack_score,
    unpack_value,
)

from linepool import ClientError

READERS = 2048  # slots in LMDB's table of readers: more than there can be workers
_EXPIRED_PER_WRITE = 2  # expired keys that one write removes
_ROOM = 8  # with less than this part of the store unused, each write is a transaction
_LOOK_EVERY = 8  # transactions that write, until the store's room is looked at again
_WRONG_TYPE = "Operation against a key holding the wrong kind of value"
_FULL_ERRORS = (lmdb.MapFullError, lmdb.BadTxnError)
_FULL = "command not allowed when used memory > 'maxmemory'."


class Store:
    """The LMDB environment of a worker, which must not cross a fork, and its tables.

    Attributes:
        db: For the commands of one batch after the other.
    """

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
        self._page_bytes = int(self._env.stat()["psize"])
        self._writes = 0  # transactions that can write
        self._has_room = False
        self.keys = self._env.open_db(b"keys")
        self.elements = self._env.open_db(b"elements")
        self.scores = self._env.open_db(b"scores")
        self.ids = self._env.open_db(b"ids")
        self.expiries = self._env.open_db(b"expiries")
        self.db = Db(self)

    def close(self) -> None:
        """Close the store."""
        self._env.close()

    def begin(self, *, write: bool) -> lmdb.Transaction:
        """Begin a transaction; one that only reads gives views of the store in place of copies."""
        return self._env.begin(None, None, write, not write)  # by name takes twice as long

    def has_room(self) -> bool:
        """Whether the writes of some commands will hardly fill the store; to look costs a little."""
        if self._writes % _LOOK_EVERY == 0:
            info = self._env.info()
            unused = info["map_size"] - (info["last_pgno"] + 1) * self._page_bytes
            self._has_room = unused > info["map_size"] // _ROOM
        self._writes += 1
        return self._has_room


class Db:
    """What the commands of one batch do, in one transaction, which ``end`` commits.

    It begins with the first command that reads, and is replaced by one that can write at the first
    command that writes. A command that fails when it has changed something takes the transaction along:
    if only its own changes are in it, they are undone, and otherwise the whole batch fails.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._open: Txn | None = None
        self._failure: Exception | None = None  # why earlier commands have not happened

    def read(self) -> Txn:
        """Return the transaction for a command that only reads: ``with db.read() as t``."""
        txn = self._open
        if txn is None:
            txn = self._open = Txn(self._store, self, write=False)
        else:
            txn.begin_command()
        return txn

    def write(self) -> Txn:
        """Return the transaction for a command that is an atomic change: ``with db.write() as t``."""
        txn = self._open
        if txn is None or not txn.writes:
            self.undo()
            txn = self._open = Txn(self._store, self, write=True)
        txn.begin_command()
        return txn

    @contextlib.contextmanager
    def together(self) -> Iterator[Txn]:
        """Run all reads and writes in the block in a transaction of its own.

        Raises:
            ClientError: The store is full; nothing was changed.
        """
        try:
            self.commit()
        except Exception as error:
            self._failure = error
            raise
        txn = self.write()
        txn.is_joint = True
        try:
            yield txn
            self.commit()
        finally:
            self.undo()

    def end(self) -> None:
        """Commit at the end of the batch.

        Raises:
            ClientError: The store was full, and some of the commands have not happened.
            RuntimeError: One failed in the middle of its changes; likewise.
        """
        failure = self._failure
        if failure is not None:
            self.abort()
            raise failure
        self.commit()

    def commit(self) -> None:
        """Commit what the commands so far have changed; raises as ``end``."""
        txn, self._open = self._open, None
        if txn is not None:
            if txn.writes:
                txn.end()
            else:
                txn.abort()

    def abort(self) -> None:
        """End the batch without a commit."""
        self._failure = None
        self.undo()

    def undo(self) -> None:
        """Undo what has not been committed."""
        txn, self._open = self._open, None
        if txn is not None:
            txn.abort()


class Txn:
    """A transaction: reads and changes of keys and their elements; the block of each command.

    Attributes:
        writes: It can write.
        is_joint: The commands in it are those of a MULTI.
    """

    # Most commands do not change these, so a transaction need not set them.
    is_joint = False
    _now_ms = 0  # of the present command; 0: not yet known
    _number = 0  # the last one that was used; 0: not yet known
    _commands = 0
    _is_shared = True  # further commands may follow; otherwise each is committed at once
    _is_changed = False  # by the present command
    _holds_changes = False  # of earlier commands
    _failure = ""  # why it cannot be committed; "": it can

    def __init__(self, store: Store, db: Db, *, write: bool) -> None:
        self._db = store
        self._owner = db
        self.writes = write
        self._raw = raw = store.begin(write=write)
        self._get = raw.get
        if write:
            self._is_shared = store.has_room()
            self._sweep(_EXPIRED_PER_WRITE)

    def begin_command(self) -> None:
        """Have a command of its own time; those of a MULTI have the same."""
        if not self.is_joint:
            self._now_ms = 0
            self._commands += 1

    def __enter__(self) -> Txn:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        is_full = kind is not None and issubclass(kind, _FULL_ERRORS)
        if is_full:
            self._failure = _FULL
        if self.is_joint:
            pass  # the MULTI is committed or aborted as a whole
        elif kind is None:
            self._holds_changes |= self._is_changed
            self._is_changed = False
            if not self._is_shared:
                self._owner.commit()
        elif self._is_changed or is_full:
            if self._holds_changes:
                self._failure = self._failure or f"a command failed in its changes: {error!r}"
            else:
                self._owner.undo()
        if is_full:
            raise ClientError(_FULL, code="OOM") from None

    def end(self) -> None:
        """Commit; raises as ``Db.end``."""
        if self._failure:
            self.abort()
            if self._failure == _FULL:
                raise ClientError(_FULL, code="OOM")
            raise RuntimeError(self._failure)
        try:
            if self._commands > 1:
                self._sweep(_EXPIRED_PER_WRITE * (self._commands - 1))
            if self._number:
                self._raw.put(b"number", pack_number(self._number))
            self._raw.commit()
        except _FULL_ERRORS:  # full now, or earlier in a MULTI
            self.abort()
            raise ClientError(_FULL, code="OOM") from None

    def abort(self) -> None:
        """Undo all changes."""
        self._raw.abort()

    @property
    def now_ms(self) -> int:
        """The time of the command; Unix time in ms."""
        if not self._now_ms:
            self._now_ms = time.time_ns() // 1_000_000
        return self._now_ms

    def string(self, key: bytes) -> bytes | memoryview | None:
        """Return the value of a string, or None; a long one may be a view, valid until the next change.

        Raises:
            ClientError: The key is of another kind.
        """
        blob = self._get(lmdb_name(key), None, self._db.keys)
        if blob is None:
            return None
        if (value := string_in(blob)) is None:  # it may have expired, or be of another kind
            header = self.typed(key, STRING)
            return None if header is None else header.value
        return value

    def find(self, key: bytes) -> Header | None:
        """Return a key's header, or None if it does not exist or has expired."""
        blob = self._get(lmdb_name(key), None, self._db.keys)
        if blob is None:
            return None
        header = unpack_header(key, blob)
        if header.expires_at and header.expires_at <= self.now_ms:
            if self.writes:
                self._remove_expired(header)
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
        self._is_changed = True
        if not header.version:  # it is new
            self._raw.put(pack_number(header.id), header.key, db=self._db.ids)
        header.version = self.next_number()
        self._raw.put(lmdb_name(header.key), header.packed(), db=self._db.keys)

    def expire(self, header: Header, at_ms: int) -> None:
        """Set when a key expires (0: never), and save it."""
        self._is_changed = True
        if header.expires_at:
            self._raw.delete(expiry_key(header), db=self._db.expiries)
        header.expires_at = at_ms
        if at_ms:
            self._raw.put(expiry_key(header), header.key, db=self._db.expiries)
        self.save(header)

    def remove(self, header: Header) -> None:
        """Delete a key with all its elements."""
        self._is_changed = True
        self.clear(header)
        if header.expires_at:
            self._raw.delete(expiry_key(header), db=self._db.expiries)
        self._raw.delete(lmdb_name(header.key), db=self._db.keys)
        self._raw.delete(pack_number(header.id), db=self._db.ids)

    def clear(self, header: Header) -> None:
        """Delete all elements of a key."""
        if header.kind == STRING:
            return
        self._is_changed = True
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
                header = unpack_header(key, self._get(lmdb_name(bytes(key)), None, self._db.keys))
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
        self._is_changed = True
        db = self._db
        for table in (db.keys, db.elements, db.scores, db.ids, db.expiries):
            self._raw.drop(table, delete=False)

    def next_number(self) -> int:
        """Return a number that was never returned before."""
        self._number = number = self.last_number() + 1
        return number

    def last_number(self) -> int:
        """Return the last number that ``next_number`` returned."""
        if self._number:
            return self._number
        blob = self._get(b"number")
        return unpack_number(blob) if blob else 0

    def get(self, header: Header, field: bytes) -> bytes | None:
        """Return the value of an element of a hash or a set, or None."""
        blob = self._get(element_key(header, field), db=self._db.elements)
        return None if blob is None else unpack_value(field, bytes(blob))

    def put(self, header: Header, field: bytes, value: bytes = b"") -> bool:
        """Store an element of a hash or a set (``value`` b""); return whether it is new."""
        self._is_changed = True
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
        self._is_changed = True
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
            while more and (key := bytes(cursor.key())).startswith(header.prefix):
                found.append(unpack_element(key, bytes(cursor.value())))
                more = cursor.next()
        return found

    def members(self, header: Header | None) -> set[bytes]:
        """Return the members of a set."""
        return {field for field, _ in self.items(header)}

    def at(self, header: Header, index: int) -> bytes:
        """Return the element of a list at an index from 0."""
        return bytes(self._get(index_key(header, index), db=self._db.elements))

    def set_at(self, header: Header, index: int, value: bytes) -> None:
        """Replace the element of a list at an index."""
        self._is_changed = True
        self._raw.put(index_key(header, index), value, db=self._db.elements)

    def push(self, header: Header, value: bytes, *, left: bool) -> None:
        """Add an element at an end of a list."""
        if left:
            header.first -= 1
        header.count += 1
        self.set_at(header, 0 if left else header.count - 1, value)

    def pop_end(self, header: Header, *, left: bool) -> bytes:
        """Remove and return the element at an end of a list, which must not be empty."""
        self._is_changed = True
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
        self._is_changed = True
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
        self._is_changed = True
        self._raw.delete(score_key(header, member, score), db=self._db.scores)
        return self.pop(header, member)

    def ranked(self, header: Header | None) -> list[tuple[bytes, float]]:
        """Return all members of a sorted set with their scores, lowest first."""
        if header is None:
            return []
        found = []
        with self._raw.cursor(self._db.scores) as cursor:
            more = cursor.set_range(header.prefix)
            while more and (key := bytes(cursor.key())).startswith(header.prefix):
                found.append((bytes(cursor.value()), score_in(key)))
                more = cursor.next()
        return found

    def _remove_expired(self, header: Header) -> None:
        """Delete a key that has expired: not a change of the command's."""
        was_changed = self._is_changed
        self.remove(header)
        self._is_changed = was_changed

    def _sweep(self, most: int) -> None:
        """Delete a few expired keys."""
        for _ in range(most):
            with self._raw.cursor(self._db.expiries) as cursor:
                if not cursor.first() or unpack_number(cursor.key()) > self.now_ms:
                    return
                key = bytes(cursor.value())
            self.find(key)
