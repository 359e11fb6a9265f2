"""memcached's items in LMDB, shared by all workers of a server.

Four tables: the items by key; their keys in the order in which they were stored, for eviction; their
keys by the time when they expire; and one record of totals. An update is one write transaction, so it
happens as a whole or not at all, even if its worker is killed.
"""

from __future__ import annotations

import contextlib
import os
import struct
import time
from collections.abc import Iterator, Mapping, Sequence

import lmdb
from attrs import define, evolve
from counters import Counters

from linepool.cache import Change, Item, OutOfMemory, Store

READERS = 2048  # slots in LMDB's table of readers: more than there can be workers
_HEAD = struct.Struct("<IIQQQQB")  # flags, last access, expiry, cas, position, stored at (ms), bits
_U64 = struct.Struct(">Q")  # big-endian, so that LMDB's order is that of the numbers
_EXPIRY = struct.Struct(">QQ")
_TOTALS = struct.Struct("<QQQQQQQ")
_FLUSH_AT = struct.Struct("<Q")  # the last of the totals, the only one that a read needs
_FLUSH_AT_OFFSET = _TOTALS.size - _FLUSH_AT.size
_FETCHED, _STALE, _WON = 1, 2, 4
_OVERHEAD = 128  # bytes of an item besides its value and its two keys
_EXPIRED_PER_WRITE = 2  # expired items that one write removes
_EVICTED_AT_ONCE = 64  # items removed when LMDB itself is full
_UPDATE_TRIES = 10  # with an eviction before each but the first
_PAGE_BYTES = 4096
_MAP_PER_LIMIT = 4  # LMDB needs free pages even to delete


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

    def read(self, keys: Sequence[bytes]) -> list[Item | None]:
        """Return the items in order, from one snapshot."""
        now_ms = time.time_ns() // 1_000_000
        items = []
        with self._env.begin() as txn:
            flush_at = 0
            if totals := txn.get(b"sums"):
                (flush_at,) = _FLUSH_AT.unpack_from(totals, _FLUSH_AT_OFFSET)
            for key in keys:
                row = self._row(txn, key)
                items.append(row.item if row and _is_valid(row, flush_at, now_ms) else None)
        return items

    def update(self, key: bytes, change: Change) -> Item | None:
        """Replace an item, in one write transaction."""
        for _ in range(_UPDATE_TRIES):
            with contextlib.suppress(lmdb.MapFullError):
                return self._update(key, change)
            # LMDB is full despite the limit, because its free pages are fragmented.
            with contextlib.suppress(lmdb.MapFullError), self._env.begin(write=True) as txn:
                totals = self._totals(txn)
                for _ in range(_EVICTED_AT_ONCE):
                    self._evict(txn, totals)
                txn.put(b"sums", totals.packed())
        raise OutOfMemory

    def flush(self, at: int) -> None:
        """From ``at`` on, drop every item that was stored before it."""
        now_ms = time.time_ns() // 1_000_000
        with self._env.begin(write=True) as txn:
            totals = self._totals(txn)
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
            txn.put(b"sums", totals.packed())

    def count(self, name: str, by: int = 1) -> None:
        """Add to one of this worker's counters."""
        if self._counters is not None:
            self._counters.add(name, by)

    def statistics(self, what: bytes = b"") -> Mapping[str, object] | None:
        """Return the names and values for ``stats``."""
        with self._env.begin() as txn:
            totals = self._totals(txn)
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

    def _update(self, key: bytes, change: Change) -> Item | None:
        now_ms = time.time_ns() // 1_000_000
        with self._env.begin(write=True) as txn:
            totals = self._totals(txn)
            self._sweep(txn, totals, now_ms)
            before = self._row(txn, key)
            old = before.item if before and _is_valid(before, totals.flush_at, now_ms) else None
            new = change(old)
            if new is old and old is not None:
                txn.abort()
                return old
            if before is not None:
                self._drop(txn, totals, key, before)
            if new is not None:
                new = self._store(txn, totals, key, new, now_ms)
            txn.put(b"sums", totals.packed())
        return new

    def _store(
        self, txn: lmdb.Transaction, totals: _Totals, key: bytes, item: Item, now_ms: int
    ) -> Item:
        """Store an item as the newest; evict the oldest ones if it needs their room."""
        size = _size_of(key, item)
        if size > self._limit:
            raise OutOfMemory
        while totals.size_bytes + size > self._limit:
            self._evict(txn, totals)
        if not item.cas:
            totals.cas += 1
            totals.stored += 1
            item = evolve(item, cas=totals.cas)
        totals.position += 1
        totals.size_bytes += size
        totals.items += 1
        txn.put(key, _packed(_Row(item, totals.position, now_ms)), db=self._items)
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
        return None if blob is None else _unpacked(bytes(blob))

    def _totals(self, txn: lmdb.Transaction) -> _Totals:
        blob = txn.get(b"sums")
        return _Totals(*_TOTALS.unpack(blob)) if blob else _Totals()


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


def _packed(row: _Row) -> bytes:
    item = row.item
    bits = _FETCHED * item.fetched + _STALE * item.stale + _WON * item.won
    head = _HEAD.pack(
        item.flags, item.last_access, item.expires_at, item.cas, row.position, row.stored_ms, bits
    )
    return head + item.data


def _unpacked(blob: bytes) -> _Row:
    flags, last_access, expires_at, cas, position, stored_ms, bits = _HEAD.unpack_from(blob)
    item = Item(
        blob[_HEAD.size :],
        flags,
        expires_at,
        cas,
        last_access,
        bool(bits & _FETCHED),
        bool(bits & _STALE),
        bool(bits & _WON),
    )
    return _Row(item, position, stored_ms)
