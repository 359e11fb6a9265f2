"""memcached's items in LMDB, shared by all workers of a server.

The updates that are answered together are one write transaction, so they happen as a whole or not at
all, even if their worker is killed. ``tables.py`` has what one update does.
"""

from __future__ import annotations

import contextlib
import os
import struct
import time
from collections.abc import Iterator, Mapping, MutableMapping, Sequence

import lmdb
from items import BITS, HEAD, OVERHEAD, unpacked
from shared import Counters, Settings, Uses
from stats import statistics
from tables import MAX_TABLES, Tables, Transaction

from linepool import ServerError
from linepool.cache import Change, Item, OutOfMemory, Store

READERS = 2048  # slots in LMDB's table of readers: more than there can be workers
_EVICTED_AT_ONCE = 64  # items removed when LMDB itself is full
_UPDATE_TRIES = 10  # with an eviction before each but the first
_PAGE_BYTES = 4096
_MAP_PER_LIMIT = 4  # LMDB needs free pages even to delete
_LOOK_EVERY = 8  # batches, until the room in the map is looked at again
_ROOM = 8  # with less than this part of the map unused, each update is a transaction
_LEAST_ITEM_BYTES = OVERHEAD + 2
_DETAIL = Settings.NAMES.index("detail_enabled")
_ALL_USES = Uses.MOST | Uses.FETCHED
_ONE_MORE = [min((uses & Uses.MOST) + 1, Uses.MOST) | Uses.FETCHED for uses in range(_ALL_USES + 1)]
_COUNTS = struct.Struct("<4Q")  # of a prefix: gets, hits, sets, deletions
_COUNT_OF = {"get": 0, "set": 2, "del": 3}


class LmdbStore(Store):
    """A store in a directory. Open it after the fork, once per process.

    Args:
        path: The directory, which must exist.
        limit_bytes: Maximum size of all items; beyond it, the least used are evicted.
        most_bytes: How far that can be raised; at least ``limit_bytes``.
    """

    def __init__(self, path: str, limit_bytes: int, most_bytes: int = 0) -> None:
        self._most = most_bytes = max(limit_bytes, most_bytes)
        self._is_shared = False  # updates wait for ``commit``
        self._change: Transaction | None = None  # what waits
        self._failure: BaseException | None = None  # why that cannot be committed
        self._seen = -1  # the last transaction that was read
        self._flush_seen = 0
        self._updates = 0
        self._had_room = False
        self._counters = Counters(os.path.join(path, "counters"))
        self._settings = Settings(
            os.path.join(path, "settings"), {"maxbytes": limit_bytes}, self._counters
        )
        self._uses = Uses(os.path.join(path, "uses"), most_bytes // _LEAST_ITEM_BYTES + 1)
        self.count = self._counters.add  # type: ignore[method-assign]
        # Without sync: memcached, too, loses its items at a power cut. The map is a sparse file.
        self._env = lmdb.open(
            path,
            map_size=map_bytes(most_bytes),
            max_readers=READERS,
            max_dbs=MAX_TABLES,
            sync=False,
            metasync=False,
            writemap=True,
        )
        self._env.reader_check()  # frees the slots of killed workers
        self._tables = Tables(self._env, self._uses)
        self._table = self._tables.items
        self._prefixes = self._env.open_db(b"prefixes")

    def close(self) -> None:
        """Close the store."""
        self._env.close()
        self._counters.close()
        self._settings.close()
        self._uses.close()

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
        return self._look_up(keys, 0)

    def fetch(self, keys: Sequence[bytes], now: int) -> list[Item | None]:
        """Return the items in order, from one snapshot, and note that they have been read."""
        return self._look_up(keys, now)

    def _look_up(self, keys: Sequence[bytes], used_at: int) -> list[Item | None]:
        if self._change is not None:
            return self._find(self._change.txn, keys, used_at)
        with self._env.begin(
            None, None, False, True
        ) as txn:  # with views; by name takes twice as long
            return self._find(txn, keys, used_at)

    def _find(
        self, txn: lmdb.Transaction, keys: Sequence[bytes], used_at: int
    ) -> list[Item | None]:
        """Return items, and note a use of each, unless ``used_at`` is 0."""
        flush_at, now = self._flush_at(txn), 0.0
        counts, times = self._uses.counts, self._uses.times
        items: list[Item | None] = []
        for key in keys:
            blob = txn.get(key, None, self._table)
            if blob is None:
                items.append(None)
                continue
            flags, stored_at, expires_at, cas, slot, bits = HEAD.unpack_from(blob)
            if expires_at or flush_at:
                now = now or time.time()
                if 0 < flush_at <= now or 0 < expires_at <= now:
                    self._counters.add("get_flushed" if 0 < flush_at <= now else "get_expired")
                    items.append(None)
                    continue
            count, last = counts[slot], times[slot]
            marks = BITS[bits | count & Uses.FETCHED]
            data = bytes(blob[HEAD.size :])
            items.append(Item(data, flags, expires_at, cas, last or stored_at, *marks))
            if used_at:
                if count != _ALL_USES:
                    counts[slot] = _ONE_MORE[count & _ALL_USES]
                if last != used_at:
                    times[slot] = used_at
        return items

    def _flush_at(self, txn: lmdb.Transaction) -> int:
        """Return from when on all items are gone, in Unix seconds; 0: no flush was ordered."""
        if self._change is not None:
            return self._change.totals.flush_at
        if (number := txn.id()) != self._seen:  # of the last one that was committed
            self._flush_seen = self._tables.flush_at(txn)
            self._seen = number
        return self._flush_seen

    def update(self, key: bytes, change: Change) -> Item | None:
        """Replace an item, in a write transaction: its own, or that of the updates since ``share``."""
        limit = self._settings["maxbytes"]
        if self._is_shared or self._change is not None:
            try:
                with self._shared() as one:
                    return self._tables.update(one, key, change, limit)
            except lmdb.MapFullError:
                raise OutOfMemory from None
        for _ in range(_UPDATE_TRIES):
            with contextlib.suppress(lmdb.MapFullError), self._changed() as one:
                return self._tables.update(one, key, change, limit)
            # LMDB is full despite the limit, because its free pages are fragmented.
            with contextlib.suppress(lmdb.MapFullError), self._changed() as one:
                one.is_begun = True
                for _ in range(_EVICTED_AT_ONCE):
                    self._tables.evict(one)
        raise OutOfMemory

    @contextlib.contextmanager
    def _changed(self) -> Iterator[Transaction]:
        """Give the shared transaction, or one that is committed at the end of the block."""
        if self._is_shared or self._change is not None:
            with self._shared() as change:
                yield change
            return
        change = self._tables.begin()
        try:
            yield change
            if change.is_begun:
                change.commit()
        finally:
            change.txn.abort()  # nothing, after a commit

    @contextlib.contextmanager
    def _shared(self) -> Iterator[Transaction]:
        """Give the transaction of the updates since ``share``.

        If the block fails in its changes, they are undone if they are the only ones, and otherwise
        nothing can be committed.
        """
        change = self._change
        if change is None:
            change = self._change = self._tables.begin()
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
        """From ``at`` on, drop every item that was stored before it.

        The first update after that time removes all items: so none of them was stored later.
        """
        now = int(time.time())
        with self._changed() as one:
            one.is_begun = True
            if at <= now or 0 < one.totals.flush_at <= now:
                self._tables.clear(one)
            if at > now:
                one.totals.flush_at = at

    def scan(self, after: bytes, most: int) -> list[tuple[bytes, Item]]:
        """Return the next items by key."""
        found: list[tuple[bytes, Item]] = []
        now = time.time()
        with self._env.begin() as txn:
            if 0 < self._tables.flush_at(txn) <= now:
                return []
            with txn.cursor(self._tables.items) as cursor:
                more = cursor.set_range(after + b"\0") if after else cursor.first()
                while more and len(found) < most:
                    item, _ = unpacked(cursor.value(), self._uses)
                    if not 0 < item.expires_at <= now:
                        found.append((cursor.key(), item))
                    more = cursor.next()
        return found

    @property
    def settings(self) -> MutableMapping[str, int]:
        """What clients may change."""
        return self._settings

    @property
    def is_detailed(self) -> bool:
        """Whether gets, sets and deletions are counted by prefix."""
        return bool(self._settings.cells[_DETAIL])

    def limit_memory(self, size_bytes: int) -> bool:
        """Change the maximum size of all items; updates then evict what is too much."""
        if size_bytes <= self._most:
            self._settings["maxbytes"] = size_bytes
        return size_bytes <= self._most

    def count_prefix(self, key: bytes, name: str, hit: bool = False) -> None:
        """Count a get, set or deletion for the part of the key before the first colon."""
        prefix, colon, _ = key.partition(b":")
        if not colon:
            return
        with self._changed() as one:
            one.is_begun = True
            counts = list(_COUNTS.unpack(one.txn.get(prefix, bytes(32), db=self._prefixes)))
            counts[_COUNT_OF[name]] += 1
            counts[1] += hit
            one.txn.put(prefix, _COUNTS.pack(*counts), db=self._prefixes)

    def prefixes(self) -> dict[bytes, tuple[int, int, int, int]]:
        """Return the counts by prefix."""
        with self._env.begin() as txn, txn.cursor(self._prefixes) as cursor:
            return {key: _COUNTS.unpack(value) for key, value in cursor}

    def reset_statistics(self) -> None:
        """Set the counters to 0."""
        self._counters.reset()
        with self._changed() as one:
            one.is_begun = True
            one.txn.drop(self._prefixes, delete=False)

    def statistics(self, what: bytes = b"") -> Mapping[str, object] | None:
        """Return the names and values for ``stats``."""
        if self._change is not None:
            totals = self._change.totals
        else:
            with self._env.begin() as txn:
                totals = self._tables.totals(txn)
        return statistics(what, totals, self._counters, self._settings)


def map_bytes(limit_bytes: int) -> int:
    """Return the maximum size of the file for items of ``limit_bytes`` together."""
    return limit_bytes * _MAP_PER_LIMIT + 64 * 2**20


def opened(path: str, limit_bytes: int, most_bytes: int = 0) -> Iterator[LmdbStore]:
    """Yield the store in a directory, which is created if missing; close it."""
    os.makedirs(path, exist_ok=True)
    store = LmdbStore(path, limit_bytes, most_bytes)
    try:
        yield store
    finally:
        store.close()
