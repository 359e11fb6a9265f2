"""memcached's items in LMDB, shared by all workers of a server.

Four tables: the items by key; their keys in the order in which they were stored, for eviction; their
keys by the time when they expire; and one record of sums. An update is one write transaction, so it
happens whole or not at all, and a worker that is killed inside one takes nothing with it.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
import time
from collections.abc import Iterator, Mapping, Sequence

import lmdb
from attrs import define, evolve

from linepool.cache import Change, Item, OutOfMemory, Store

READERS = 2048  # slots in LMDB's table of readers: more than there can be workers
_HEAD = struct.Struct("<IIQQQQB")  # flags, last access, expiry, cas, place, stored at (ms), bits
_U64 = struct.Struct(">Q")  # big-endian, so that LMDB's order is the numbers'
_EXPIRY = struct.Struct(">QQ")
_SUMS = struct.Struct("<QQQQQQQ")
_FLUSH_AT = struct.Struct("<Q")  # the last of the sums, all that a reader wants
_FLUSH_AT_PLACE = _SUMS.size - _FLUSH_AT.size
_FETCHED, _STALE, _WON = 1, 2, 4
_OVERHEAD = 128  # bytes of an item beyond its value and its two keys
_SWEPT = 2  # expired items that one write looks for
_EVICTED_AT_ONCE = 64  # items that go when LMDB itself is full
_TRIES = 10
_PAGE = 4096
_MAP_PER_LIMIT = 4  # LMDB may not fill up: it needs room to free room


@define
class _Sums:
    """What is known of all items together; kept in the store."""

    cas: int = 0
    place: int = 0
    weight: int = 0
    items: int = 0
    stored: int = 0
    evicted: int = 0
    flush_at: int = 0  # ms; items stored before it are gone once it has come

    def packed(self) -> bytes:
        return _SUMS.pack(
            self.cas, self.place, self.weight, self.items, self.stored, self.evicted, self.flush_at
        )


@define
class _Row:
    """An item with what only the store knows of it."""

    item: Item
    place: int
    stored_ms: int


class LmdbStore(Store):
    """A store in a directory; to be opened after the fork, once in each process.

    Args:
        path: The directory; made if it is missing.
        limit_bytes: How much all items may weigh; beyond it, those that were stored first go.
        counters: Counts what the workers do.
    """

    def __init__(self, path: str, limit_bytes: int, counters: Counters | None = None) -> None:
        self._limit = limit_bytes
        self._counters = counters
        self._path = path
        # Nothing waits for a disk: memcached forgets at a power cut, too. The map is a sparse file.
        self._env = lmdb.open(
            path,
            map_size=map_bytes(limit_bytes),
            max_readers=READERS,
            max_dbs=4,
            sync=False,
            metasync=False,
            writemap=True,
        )
        self._env.reader_check()  # a killed worker may have left its slot taken
        self._items = self._env.open_db(b"items")
        self._places = self._env.open_db(b"places")
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
            if sums := txn.get(b"sums"):
                (flush_at,) = _FLUSH_AT.unpack_from(sums, _FLUSH_AT_PLACE)
            for key in keys:
                row = self._row(txn, key)
                items.append(row.item if row and _lives(row, flush_at, now_ms) else None)
        return items

    def update(self, key: bytes, change: Change) -> Item | None:
        """Replace an item, in one write transaction."""
        for _ in range(_TRIES):
            with contextlib.suppress(lmdb.MapFullError):
                return self._update(key, change)
            # LMDB itself is full, which the limit is there to prevent: its free room is in pieces.
            with contextlib.suppress(lmdb.MapFullError), self._env.begin(write=True) as txn:
                sums = self._sums(txn)
                for _ in range(_EVICTED_AT_ONCE):
                    self._evict(txn, sums)
                txn.put(b"sums", sums.packed())
        raise OutOfMemory

    def flush(self, at: int) -> None:
        """Drop every item that was stored before ``at`` once that has come."""
        now_ms = time.time_ns() // 1_000_000
        with self._env.begin(write=True) as txn:
            sums = self._sums(txn)
            if at * 1000 > now_ms:
                # One that is due already must have its effect before it is forgotten.
                while key := self._flushed(txn, sums, now_ms):
                    if row := self._row(txn, key):
                        self._drop(txn, sums, key, row)
                sums.flush_at = at * 1000
            else:
                for table in (self._items, self._places, self._expiries):
                    txn.drop(table, delete=False)
                sums.weight = sums.items = sums.flush_at = 0
            txn.put(b"sums", sums.packed())

    def count(self, name: str, by: int = 1) -> None:
        """Add to a counter of this worker."""
        if self._counters is not None:
            self._counters.add(name, by)

    def statistics(self, what: bytes = b"") -> Mapping[str, object] | None:
        """Return what ``stats`` shows."""
        with self._env.begin() as txn:
            sums = self._sums(txn)
        if what == b"settings":
            return {"maxbytes": self._limit, "evictions": "on", "cas_enabled": "yes"}
        if what == b"items":
            return {"items:1:number": sums.items, "items:1:evicted": sums.evicted}
        if what == b"slabs":
            return {"active_slabs": 1, "total_malloced": sums.weight}
        if what in (b"sizes", b"conns"):
            return {}
        if what:
            return None
        return {
            "pid": os.getppid(),
            "time": int(time.time()),
            "pointer_size": 64,
            "limit_maxbytes": self._limit,
            "bytes": sums.weight,
            "curr_items": sums.items,
            "total_items": sums.stored,
            "evictions": sums.evicted,
            **(self._counters.sums() if self._counters is not None else {}),
        }

    def reset_statistics(self) -> None:
        """Set the counters to 0."""
        if self._counters is not None:
            self._counters.reset()

    # -- inside a write transaction

    def _update(self, key: bytes, change: Change) -> Item | None:
        now_ms = time.time_ns() // 1_000_000
        with self._env.begin(write=True) as txn:
            sums = self._sums(txn)
            self._sweep(txn, sums, now_ms)
            before = self._row(txn, key)
            old = before.item if before and _lives(before, sums.flush_at, now_ms) else None
            new = change(old)
            if new is old and old is not None:
                txn.abort()
                return old
            if before is not None:
                self._drop(txn, sums, key, before)
            if new is not None:
                new = self._store(txn, sums, key, new, now_ms)
            txn.put(b"sums", sums.packed())
        return new

    def _store(
        self, txn: lmdb.Transaction, sums: _Sums, key: bytes, item: Item, now_ms: int
    ) -> Item:
        """Put an item behind all others; those in front go, as far as it needs their room."""
        weight = _weight(key, item)
        if weight > self._limit:
            raise OutOfMemory
        while sums.weight + weight > self._limit:
            self._evict(txn, sums)
        if not item.cas:
            sums.cas += 1
            sums.stored += 1
            item = evolve(item, cas=sums.cas)
        sums.place += 1
        sums.weight += weight
        sums.items += 1
        txn.put(key, _packed(_Row(item, sums.place, now_ms)), db=self._items)
        txn.put(_U64.pack(sums.place), key, db=self._places, append=True)
        if item.expires_at:
            txn.put(_EXPIRY.pack(item.expires_at, sums.place), key, db=self._expiries)
        return item

    def _drop(self, txn: lmdb.Transaction, sums: _Sums, key: bytes, row: _Row) -> None:
        txn.delete(key, db=self._items)
        txn.delete(_U64.pack(row.place), db=self._places)
        if row.item.expires_at:
            txn.delete(_EXPIRY.pack(row.item.expires_at, row.place), db=self._expiries)
        sums.weight -= _weight(key, row.item)
        sums.items -= 1

    def _evict(self, txn: lmdb.Transaction, sums: _Sums) -> None:
        """Drop the item that was stored first."""
        with txn.cursor(self._places) as cursor:
            key = bytes(cursor.value()) if cursor.first() else b""
        row = self._row(txn, key) if key else None
        if row is not None:
            self._drop(txn, sums, key, row)
            sums.evicted += 1

    def _sweep(self, txn: lmdb.Transaction, sums: _Sums, now_ms: int) -> None:
        """Drop a few items that have expired, or were stored before a flush that has come."""
        for _ in range(_SWEPT):
            key = self._expired(txn, now_ms) or self._flushed(txn, sums, now_ms)
            row = self._row(txn, key) if key else None
            if row is None:
                return
            self._drop(txn, sums, key, row)

    def _expired(self, txn: lmdb.Transaction, now_ms: int) -> bytes:
        with txn.cursor(self._expiries) as cursor:
            if cursor.first() and _EXPIRY.unpack(cursor.key())[0] * 1000 <= now_ms:
                return bytes(cursor.value())
        return b""

    def _flushed(self, txn: lmdb.Transaction, sums: _Sums, now_ms: int) -> bytes:
        if not 0 < sums.flush_at <= now_ms:
            return b""
        with txn.cursor(self._places) as cursor:
            key = bytes(cursor.value()) if cursor.first() else b""
        row = self._row(txn, key) if key else None
        return key if row is not None and row.stored_ms < sums.flush_at else b""

    def _row(self, txn: lmdb.Transaction, key: bytes) -> _Row | None:
        blob = txn.get(key, db=self._items)
        return None if blob is None else _unpacked(bytes(blob))

    def _sums(self, txn: lmdb.Transaction) -> _Sums:
        blob = txn.get(b"sums")
        return _Sums(*_SUMS.unpack(blob)) if blob else _Sums()


class Counters:
    """Counters of all workers, in one file that each of them maps.

    A worker adds only to a row of its own, so no two ever write one word. A dead worker's row stays
    counted; a new worker goes on with it.
    """

    NAMES = (
        *("cmd_get", "cmd_set", "cmd_touch", "cmd_flush", "get_hits", "get_misses", "cas_hits"),
        *("cas_badval", "cas_misses", "incr_hits", "incr_misses", "decr_hits", "decr_misses"),
        *("delete_hits", "delete_misses", "touch_hits", "touch_misses", "total_connections"),
    )
    _ROWS = 1024
    _WORDS = 24  # in a row: the pid, then the counters

    def __init__(self, path: str) -> None:
        size = self._ROWS * self._WORDS * 8
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        # POSIX's locks end with the process that holds them.
        os.lockf(self._file, os.F_LOCK, 0)
        if os.fstat(self._file).st_size < size:
            os.ftruncate(self._file, size)
        self._map = mmap.mmap(self._file, size)
        self._words = memoryview(self._map).cast("Q")
        self._first = self._claim() * self._WORDS
        os.lockf(self._file, os.F_ULOCK, 0)
        self._index = {name: 1 + at for at, name in enumerate(self.NAMES)}

    def add(self, name: str, by: int = 1) -> None:
        """Add to a counter."""
        self._words[self._first + self._index[name]] += by

    def sums(self) -> dict[str, int]:
        """Return each counter's sum over all workers, less what it was at the last reset."""
        totals = self._totals()
        base = self._words[: self._WORDS]
        return {name: totals[at] - base[at] for name, at in self._index.items()}

    def reset(self) -> None:
        """Count from 0 again; the first row holds what the sums were then."""
        self._words[1 : self._WORDS] = memoryview(struct.pack("23Q", *self._totals()[1:])).cast("Q")

    def close(self) -> None:
        """Unmap the file."""
        self._words.release()
        self._map.close()
        os.close(self._file)

    def _totals(self) -> list[int]:
        used = self._words[self._WORDS :].tolist()
        rows = [used[at : at + self._WORDS] for at in range(0, len(used), self._WORDS)]
        return [sum(column) for column in zip(*(row for row in rows if row[0]), strict=True)] or [
            0
        ] * self._WORDS

    def _claim(self) -> int:
        """Return the first row whose worker is dead or that nobody has."""
        for row in range(1, self._ROWS):
            pid = self._words[row * self._WORDS]
            if not pid or not os.path.exists(f"/proc/{pid}"):
                self._words[row * self._WORDS] = os.getpid()
                return row
        raise RuntimeError("more workers than rows of counters")


def map_bytes(limit_bytes: int) -> int:
    """Return how large the file may become whose items may weigh so much."""
    return limit_bytes * _MAP_PER_LIMIT + 64 * 2**20


def opened(path: str, limit_bytes: int) -> Iterator[LmdbStore]:
    """Yield the store in a directory, with the counters beside it, and close both."""
    os.makedirs(path, exist_ok=True)
    counters = Counters(os.path.join(path, "counters"))
    store = LmdbStore(path, limit_bytes, counters)
    try:
        yield store
    finally:
        store.close()
        counters.close()


def _weight(key: bytes, item: Item) -> int:
    size = len(item.data)
    if size > _PAGE // 2:  # beyond that, LMDB gives a value pages of its own
        size = -(-size // _PAGE) * _PAGE
    return size + 2 * len(key) + _OVERHEAD


def _lives(row: _Row, flush_at: int, now_ms: int) -> bool:
    if 0 < row.item.expires_at * 1000 <= now_ms:
        return False
    return not (0 < flush_at <= now_ms and row.stored_ms < flush_at)


def _packed(row: _Row) -> bytes:
    item = row.item
    bits = _FETCHED * item.fetched + _STALE * item.stale + _WON * item.won
    head = _HEAD.pack(
        item.flags, item.last_access, item.expires_at, item.cas, row.place, row.stored_ms, bits
    )
    return head + item.data


def _unpacked(blob: bytes) -> _Row:
    flags, last_access, expires_at, cas, place, stored_ms, bits = _HEAD.unpack_from(blob)
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
    return _Row(item, place, stored_ms)
