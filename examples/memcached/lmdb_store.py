"""memcached's items in LMDB, shared by all workers of a server.

Four tables: the items by key; their keys in the order in which they were stored, for eviction; their
keys by the time when they expire; and one record of totals. The updates that are answered together are one
write transaction, so they happen as a whole or not at all, even if their worker is killed.
"""

from __future__ import annotations

import contextlib
import os
import struct
import time
from collections.abc import Iterator, Mapping, Sequence

import lmdb
from attrs import define
from counters import Counters

from linepool import ServerError
from linepool.cache import Change, Item, OutOfMemory, Store

READERS = 2048  # slots in LMDB's table of readers: more than there can be workers
_HEAD = struct.Struct("<IIQQQQB")  # flags, last access, expiry, cas, position, stored at (ms), bits
_U64 = struct.Struct(">Q")  # big-endian, so that LMDB's order is that of the numbers
_EXPIRY = struct.Struct(">QQ")
_TOTALS = struct.Struct("<QQQQQQQ")
_FLUSH_AT = struct.Struct("<Q")  # the last of the totals, the only one that a read needs
_FLUSH_AT_OFFSET = _TOTALS.size - _FLUSH_AT.size
_FETCHED, _STALE, _WON = 1, 2, 4
_BITS = [(bool(bits & _FETCHED), bool(bits & _STALE), bool(bits & _WON)) for bits in range(8)]
_OVERHEAD = 128  # bytes of an item besides its value and its two keys
_EXPIRED_PER_WRITE = 2  # expired items that one write removes
_EVICTED_AT_ONCE = 64  # items removed when LMDB itself is full
_UPDATE_TRIES = 10  # with an eviction before each but the first
_PAGE_BYTES = 4096
_MAP_PER_LIMIT = 4  # LMDB needs free pages even to delete
_LOOK_EVERY = 8  # batches, until the room in the map is looked at again
_ROOM = 8  # with less than this part of the map unused, each update is a transaction


@define
class _Totals:
    """Totals over all items; kept in the store."""

    cas: int = 0
    position: int = 0
    size_bytes: int = 0  # of all items, as their limit counts them
    items: int = 0
    stored: int = 0
    evicted: int = 0
    flush_at: int = 0  # Unix ms; from then on, items stored before it are gone

    def packed(self) -> bytes:
        return _TOTALS.pack(
            self.cas,
            self.position,
            self.size_bytes,
            self.items,
            self.stored,
            self.evicted,
            self.flush_at,
        )


@define
class _Row:
    """An item with the store's own data about it."""

    item: Item
    position: int
    stored_ms: int


class _Change:
    """A write transaction, with the totals as of its last update.

    Attributes:
        is_begun: The present update has changed something.
        holds: Earlier updates have.
    """

    is_begun = False
    holds = False

    def __init__(self, txn: lmdb.Transaction) -> None:
        self.txn = txn
        blob = txn.get(b"sums")
        self.totals = _Totals(*_TOTALS.unpack(blob)) if blob else _Totals()

    def commit(self) -> None:
        """Commit it.

        Raises:
            lmdb.MapFullError: Nothing was changed.
        """
        self.txn.put(b"sums", self.totals.packed())
        self.txn.commit()


class LmdbStore(Store):
    """A store in a directory. Open it after the fork, once per process.

    Args:
        path: The directory, which must exist.
        limit_bytes: Maximum size of all items; beyond it, those stored first are evicted.
        counters: The workers' counters for ``stats``.
    """

    def __init__(self, path: str, limit_bytes: int, counters: Counters | None = None) -> None:
        self._limit = limit_bytes
        self._counters = counters
        self._path = path
        self._is_shared = False  # updates wait for ``commit``
        self._change: _Change | None = None  # what waits
        self._failure: BaseException | None = None  # why that cannot be committed
        self._seen = -1  # the last transaction that was read
        self._flush_seen = 0
        self._updates = 0
        self._had_room = False
        # Without sync: memcached, too, loses its items at a power cut. The map is a sparse file.
        self._env = lmdb.open(
            path,
            map_size=map_bytes(limit_bytes),
            max_readers=READERS,
            max_dbs=4,
            sync=False,
            metasync=False,
            writemap=True,
        )
        self._env.reader_check()  # frees the slots of killed workers
        self._items = self._env.open_db(b"items")
        self._positions = self._env.open_db(b"places")
        self._expiries = self._env.open_db(b"expiries")

    def close(self) -> None:
        """Close the store."""
        self._env.close()

    def share(self) -> None:
        """Have the updates from now on make one transaction, which ``commit`` ends."""
        self._is_shared = self._has_room()

    def commit(self) -> None:
        """Commit the updates since ``share``.

        Raises:
            ServerError: The store is full; none of them has happened.
            RuntimeError: One was interrupted, after others; likewise.
        """
        self._is_shared = False
        failure, self._failure = self._failure, None
        change, self._change = self._change, None
        if failure is not None:
            raise RuntimeError("an update was interrupted") from failure
        if change is not None:
            try:
                change.commit()
            except (lmdb.MapFullError, lmdb.BadTxnError):
                change.txn.abort()
                raise ServerError("out of memory storing object") from None

    def roll_back(self) -> None:
        """Undo the updates since ``share`` that have not been committed."""
        self._is_shared = False
        self._failure = None
        change, self._change = self._change, None
        if change is not None:
            change.txn.abort()

    def read(self, keys: Sequence[bytes]) -> list[Item | None]:
        """Return the items in order, from one snapshot."""
        if self._change is not None:
            return self._read(self._change.txn, keys)
        with self._env.begin(
            None, None, False, True
        ) as txn:  # with views; by name takes twice as long
            return self._read(txn, keys)

    def _read(self, txn: lmdb.Transaction, keys: Sequence[bytes]) -> list[Item | None]:
        items: list[Item | None] = []
        flush_at = self._flush_at(txn)
        for key in keys:
            blob = txn.get(key, None, self._items)
            items.append(None if blob is None else _valid_item(blob, flush_at))
        return items

    def _flush_at(self, txn: lmdb.Transaction) -> int:
        """Return from when on older items are gone, as Unix time in ms; 0: no flush was ordered."""
        if self._change is not None:
            return self._change.totals.flush_at
        if (number := txn.id()) != self._seen:  # of the last one that was committed
            totals = txn.get(b"sums")
            self._flush_seen = _FLUSH_AT.unpack_from(totals, _FLUSH_AT_OFFSET)[0] if totals else 0
            self._seen = number
        return self._flush_seen

    def update(self, key: bytes, change: Change) -> Item | None:
        """Replace an item, in a write transaction: its own, or that of the updates since ``share``."""
        if self._is_shared or self._change is not None:
            try:
                with self._shared() as one:
                    return self._update(one, key, change)
            except lmdb.MapFullError:
                raise OutOfMemory from None
        for _ in range(_UPDATE_TRIES):
            with contextlib.suppress(lmdb.MapFullError), self._changed() as one:
                return self._update(one, key, change)
            # LMDB is full despite the limit, because its free pages are fragmented.
            with contextlib.suppress(lmdb.MapFullError), self._changed() as one:
                one.is_begun = True
                for _ in range(_EVICTED_AT_ONCE):
                    self._evict(one.txn, one.totals)
        raise OutOfMemory

    @contextlib.contextmanager
    def _changed(self) -> Iterator[_Change]:
        """Give the shared transaction, or one that is committed at the end of the block."""
        if self._is_shared or self._change is not None:
            with self._shared() as change:
                yield change
            return
        with self._env.begin(write=True) as txn:
            change = _Change(txn)
            yield change
            if change.is_begun:
                txn.put(b"sums", change.totals.packed())
            else:
                txn.abort()

    @contextlib.contextmanager
    def _shared(self) -> Iterator[_Change]:
        """Give the transaction of the updates since ``share``.

        If the block fails in its changes, they are undone if they are the only ones, and otherwise
        nothing can be committed.
        """
        change = self._change
        if change is None:
            change = self._change = _Change(self._env.begin(write=True))
        change.is_begun = False
        try:
            yield change
        except BaseException as error:
            if change.is_begun and change.holds:
                self._failure = self._failure or error
            elif change.is_begun:
                self._change = None
                change.txn.abort()
            raise
        change.holds |= change.is_begun

    def _has_room(self) -> bool:
        """Whether some updates will hardly fill the map."""
        if self._updates % _LOOK_EVERY == 0:
            info = self._env.info()
            unused = info["map_size"] - (info["last_pgno"] + 1) * _PAGE_BYTES
            self._had_room = unused > info["map_size"] // _ROOM
        self._updates += 1
        return self._had_room

    def flush(self, at: int) -> None:
        """From ``at`` on, drop every item that was stored before it."""
        now_ms = time.time_ns() // 1_000_000
        with self._changed() as one:
            txn, totals, one.is_begun = one.txn, one.totals, True
            if at * 1000 > now_ms:
                # An earlier flush that is due must take effect before its time is overwritten.
                while key := self._flushed(txn, totals, now_ms):
                    if row := self._row(txn, key):
                        self._drop(txn, totals, key, row)
                totals.flush_at = at * 1000
            else:
                for table in (self._items, self._positions, self._expiries):
                    txn.drop(table, delete=False)
                totals.size_bytes = totals.items = totals.flush_at = 0

    def count(self, name: str, by: int = 1) -> None:
        """Add to one of this worker's counters."""
        if self._counters is not None:
            self._counters.add(name, by)

    def statistics(self, what: bytes = b"") -> Mapping[str, object] | None:
        """Return the names and values for ``stats``."""
        if self._change is not None:
            totals = self._change.totals
        else:
            with self._env.begin() as txn:
                totals = _Change(txn).totals
        if what == b"settings":
            return {"maxbytes": self._limit, "evictions": "on", "cas_enabled": "yes"}
        if what == b"items":
            return {"items:1:number": totals.items, "items:1:evicted": totals.evicted}
        if what == b"slabs":
            return {"active_slabs": 1, "total_malloced": totals.size_bytes}
        if what in (b"sizes", b"conns"):
            return {}
        if what:
            return None
        return {
            "pid": os.getppid(),
            "time": int(time.time()),
            "pointer_size": 64,
            "limit_maxbytes": self._limit,
            "bytes": totals.size_bytes,
            "curr_items": totals.items,
            "total_items": totals.stored,
            "evictions": totals.evicted,
            **(self._counters.sums() if self._counters is not None else {}),
        }

    def reset_statistics(self) -> None:
        """Set the counters to 0."""
        if self._counters is not None:
            self._counters.reset()

    def _update(self, one: _Change, key: bytes, change: Change) -> Item | None:
        now_ms = time.time_ns() // 1_000_000
        txn, totals = one.txn, one.totals
        blob = txn.get(key, db=self._items)
        before = None if blob is None else _unpacked(blob)
        old = before.item if before and _is_valid(before, totals.flush_at, now_ms) else None
        new = change(old)
        if new is old and old is not None:
            return old
        if new is not None and _size_of(key, new) > self._limit:
            raise OutOfMemory
        one.is_begun = True
        if before is not None:
            self._drop(txn, totals, key, before)
        self._sweep(txn, totals, now_ms)
        return None if new is None else self._store(txn, totals, key, new, now_ms)

    def _store(
        self, txn: lmdb.Transaction, totals: _Totals, key: bytes, item: Item, now_ms: int
    ) -> Item:
        """Store an item as the newest; evict the oldest ones if it needs their room."""
        size = _size_of(key, item)
        while totals.size_bytes + size > self._limit:
            self._evict(txn, totals)
        if not item.cas:
            totals.cas += 1
            totals.stored += 1
            item = _numbered(item, totals.cas)
        totals.position += 1
        totals.size_bytes += size
        totals.items += 1
        txn.put(key, _packed(item, totals.position, now_ms), db=self._items)
        txn.put(_U64.pack(totals.position), key, db=self._positions, append=True)
        if item.expires_at:
            txn.put(_EXPIRY.pack(item.expires_at, totals.position), key, db=self._expiries)
        return item

    def _drop(self, txn: lmdb.Transaction, totals: _Totals, key: bytes, row: _Row) -> None:
        txn.delete(key, db=self._items)
        txn.delete(_U64.pack(row.position), db=self._positions)
        if row.item.expires_at:
            txn.delete(_EXPIRY.pack(row.item.expires_at, row.position), db=self._expiries)
        totals.size_bytes -= _size_of(key, row.item)
        totals.items -= 1

    def _evict(self, txn: lmdb.Transaction, totals: _Totals) -> None:
        """Remove the item that was stored first."""
        with txn.cursor(self._positions) as cursor:
            key = bytes(cursor.value()) if cursor.first() else b""
        row = self._row(txn, key) if key else None
        if row is not None:
            self._drop(txn, totals, key, row)
            totals.evicted += 1

    def _sweep(self, txn: lmdb.Transaction, totals: _Totals, now_ms: int) -> None:
        """Remove a few items that have expired or that a flush has made invalid."""
        for _ in range(_EXPIRED_PER_WRITE):
            key = self._expired(txn, now_ms) or self._flushed(txn, totals, now_ms)
            row = self._row(txn, key) if key else None
            if row is None:
                return
            self._drop(txn, totals, key, row)

    def _expired(self, txn: lmdb.Transaction, now_ms: int) -> bytes:
        with txn.cursor(self._expiries) as cursor:
            if cursor.first() and _EXPIRY.unpack(cursor.key())[0] * 1000 <= now_ms:
                return bytes(cursor.value())
        return b""

    def _flushed(self, txn: lmdb.Transaction, totals: _Totals, now_ms: int) -> bytes:
        if not 0 < totals.flush_at <= now_ms:
            return b""
        with txn.cursor(self._positions) as cursor:
            key = bytes(cursor.value()) if cursor.first() else b""
        row = self._row(txn, key) if key else None
        return key if row is not None and row.stored_ms < totals.flush_at else b""

    def _row(self, txn: lmdb.Transaction, key: bytes) -> _Row | None:
        blob = txn.get(key, db=self._items)
        return None if blob is None else _unpacked(blob)


def map_bytes(limit_bytes: int) -> int:
    """Return the maximum size of the file for items of ``limit_bytes`` together."""
    return limit_bytes * _MAP_PER_LIMIT + 64 * 2**20


def opened(path: str, limit_bytes: int) -> Iterator[LmdbStore]:
    """Yield the store in a directory, which is created if missing, with its counters; close both."""
    os.makedirs(path, exist_ok=True)
    counters = Counters(os.path.join(path, "counters"))
    store = LmdbStore(path, limit_bytes, counters)
    try:
        yield store
    finally:
        store.close()
        counters.close()


def _size_of(key: bytes, item: Item) -> int:
    size = len(item.data)
    if size > _PAGE_BYTES // 2:  # LMDB stores a larger value in pages of its own
        size = -(-size // _PAGE_BYTES) * _PAGE_BYTES
    return size + 2 * len(key) + _OVERHEAD


def _is_valid(row: _Row, flush_at: int, now_ms: int) -> bool:
    if 0 < row.item.expires_at * 1000 <= now_ms:
        return False
    return not (0 < flush_at <= now_ms and row.stored_ms < flush_at)


def _numbered(item: Item, cas: int) -> Item:
    """Return an item with a unique number; five times as fast as ``evolve``."""
    return Item(
        item.data,
        item.flags,
        item.expires_at,
        cas,
        item.last_access,
        item.fetched,
        item.stale,
        item.won,
    )


def _packed(item: Item, position: int, stored_ms: int) -> bytes:
    bits = _FETCHED * item.fetched + _STALE * item.stale + _WON * item.won
    head = _HEAD.pack(
        item.flags, item.last_access, item.expires_at, item.cas, position, stored_ms, bits
    )
    return head + item.data


def _valid_item(blob: memoryview | bytes, flush_at: int) -> Item | None:
    """Return a stored item, or None: it has expired, or a flush has dropped it."""
    flags, last_access, expires_at, cas, _, stored_ms, bits = _HEAD.unpack_from(blob)
    if expires_at or flush_at:
        now_ms = time.time_ns() // 1_000_000
        if 0 < expires_at * 1000 <= now_ms or stored_ms < flush_at <= now_ms:
            return None
    return Item(bytes(blob[_HEAD.size :]), flags, expires_at, cas, last_access, *_BITS[bits])


def _unpacked(blob: bytes) -> _Row:
    flags, last_access, expires_at, cas, position, stored_ms, bits = _HEAD.unpack_from(blob)
    item = Item(blob[_HEAD.size :], flags, expires_at, cas, last_access, *_BITS[bits])
    return _Row(item, position, stored_ms)
