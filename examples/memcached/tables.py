"""The tables of the items in LMDB, and what one update does to them, evictions among it.

An item keeps its slot, a number, until it is removed. Eviction looks at a few slots and removes the item with
the fewest uses. A hand goes round the slots, much more slowly, and halves the uses, so what was popular once
has to make room in the end. The uses are not in a transaction (``shared.Uses``): a read writes nothing here.
"""

from __future__ import annotations

import struct
import time

import lmdb
from items import Totals, flush_time, numbered, packed, size_of, unpacked
from shared import Uses

from linepool.cache import Change, Item, OutOfMemory

MAX_TABLES = 8
_SLOT = struct.Struct(">I")  # big-endian, so that LMDB's order is that of the numbers
_EXPIRY = struct.Struct(">QI")  # when, and the slot
_TOTALS = b"totals"
_EXPIRED_PER_WRITE = 2  # expired items that one write removes
_SAMPLE = 8  # items of which the least used one is evicted
_SPREAD = 0x9E3779B1  # a number whose multiples, modulo any other, are spread evenly
_EVICTIONS_PER_STEP = 4  # of the hand
_EVICTED_PER_WRITE = 64  # beyond the room that the write needs, after the limit was lowered


class Transaction:
    """A write transaction, with the totals as of its last update.

    Attributes:
        spare: Slots of items that it has removed, for the next ones.
        is_begun: The present update has changed something.
        holds: Earlier updates have.
    """

    is_begun = False
    holds = False

    def __init__(self, txn: lmdb.Transaction, free: lmdb._Database) -> None:
        self.txn = txn
        self.totals = Totals.unpacked(txn.get(_TOTALS))
        self.spare: list[int] = []
        self._free = free

    def commit(self) -> None:
        """Commit it.

        Raises:
            lmdb.MapFullError: Nothing was changed.
        """
        for slot in self.spare:
            self.txn.put(_SLOT.pack(slot), b"", db=self._free)
        self.txn.put(_TOTALS, self.totals.packed())
        self.txn.commit()

    def take_slot(self) -> int:
        """Return a slot for a new item."""
        if self.spare:
            return self.spare.pop()
        with self.txn.cursor(self._free) as cursor:
            if cursor.first():
                slot = _SLOT.unpack(cursor.key())[0]
                cursor.delete()
                return int(slot)
        self.totals.slots += 1
        return self.totals.slots - 1


class Tables:
    """The items by key, their keys by slot and by expiry time, and the free slots.

    Args:
        env: The environment.
        uses: How recently the item of each slot was used.
    """

    def __init__(self, env: lmdb.Environment, uses: Uses) -> None:
        self._env = env
        self._uses = uses
        self.items = env.open_db(b"values")
        self._slots = env.open_db(b"slots")
        self._expiries = env.open_db(b"expiry")
        self._free = env.open_db(b"free")

    def begin(self) -> Transaction:
        """Begin a write transaction."""
        return Transaction(self._env.begin(write=True), self._free)

    def totals(self, txn: lmdb.Transaction) -> Totals:
        """Return the totals in a read transaction."""
        return Totals.unpacked(bytes(txn.get(_TOTALS, b"")))

    def flush_at(self, txn: lmdb.Transaction) -> int:
        """Return from when on all items are gone, in Unix seconds; 0: no flush was ordered."""
        return flush_time(txn.get(_TOTALS))

    def update(self, one: Transaction, key: bytes, change: Change, limit: int) -> Item | None:
        """Replace an item."""
        now = int(time.time())
        if 0 < one.totals.flush_at <= now:
            self.clear(one)
        blob = one.txn.get(key, db=self.items)
        before, slot = unpacked(blob, self._uses) if blob else (None, -1)
        old = None if before is None or 0 < before.expires_at <= now else before
        new = change(old)
        if new is old and old is not None:
            return old
        if new is not None and size_of(key, len(new.data)) > limit:
            raise OutOfMemory
        one.is_begun = True
        self._sweep(one, now, key)
        if before is not None and (new is None or old is None):
            self._drop(one, key, before, slot)
            self._count_expired(one, old is None, before)
            before = None
        if new is None:
            return None
        if before is not None:
            one.totals.size_bytes -= size_of(key, len(before.data))
            one.totals.items -= 1
        return self._store(one, key, new, before, slot, limit)

    def clear(self, one: Transaction) -> None:
        """Remove all items."""
        one.is_begun = True
        for table in (self.items, self._slots, self._expiries, self._free):
            one.txn.drop(table, delete=False)
        one.spare.clear()
        totals = one.totals
        totals.slots = totals.hand = totals.size_bytes = totals.items = totals.flush_at = 0

    def evict(self, one: Transaction, keep: int = -1) -> int:
        """Remove an item that has been used little; return its size, or 0: there is none.

        Args:
            one: The transaction.
            keep: A slot whose item stays.
        """
        key = self._victim(one, keep) if one.totals.slots else None
        blob = one.txn.get(key, db=self.items) if key is not None else None
        if key is None or blob is None:
            return 0
        item, slot = unpacked(blob, self._uses)
        self._drop(one, key, item, slot)
        one.totals.evicted += 1
        one.totals.evicted_unfetched += not item.fetched
        return size_of(key, len(item.data))

    def _victim(self, one: Transaction, keep: int) -> bytes | None:
        """Return the key of the least used item of a few; move the hand."""
        counts, totals = self._uses.counts, one.totals
        if totals.evicted % _EVICTIONS_PER_STEP == 0:
            totals.hand = (totals.hand + 1) % totals.slots
            self._uses.age(totals.hand)
        fewest, best = Uses.MOST + 1, None
        first = totals.evicted * _SAMPLE
        with one.txn.cursor(self._slots) as cursor:
            for number in range(first, first + _SAMPLE):
                if not (
                    cursor.set_range(_SLOT.pack(number * _SPREAD % totals.slots)) or cursor.first()
                ):
                    break
                slot = _SLOT.unpack(cursor.key())[0]
                uses = counts[slot] & Uses.MOST
                if uses < fewest and slot != keep:
                    fewest, best = uses, cursor.value()
        return best

    def _store(
        self, one: Transaction, key: bytes, item: Item, before: Item | None, slot: int, limit: int
    ) -> Item:
        """Store an item, in its slot if it has one; evict others if it needs their room."""
        size = size_of(key, len(item.data))
        self._make_room(one, size, limit, slot)
        totals = one.totals
        if not item.cas:
            totals.cas += 1
            totals.stored += 1
            item = numbered(item, totals.cas)
        if before is None:
            slot = one.take_slot()
            one.txn.put(_SLOT.pack(slot), key, db=self._slots)
            self._uses.counts[slot] = 1
        elif before.expires_at and before.expires_at != item.expires_at:
            one.txn.delete(_EXPIRY.pack(before.expires_at, slot), db=self._expiries)
        self._note(slot, item)
        totals.size_bytes += size
        totals.items += 1
        one.txn.put(key, packed(item, slot), db=self.items)
        if item.expires_at and (before is None or before.expires_at != item.expires_at):
            one.txn.put(_EXPIRY.pack(item.expires_at, slot), key, db=self._expiries)
        return item

    def _note(self, slot: int, item: Item) -> None:
        """Note when an item was used; storing it anew is a use."""
        counts = self._uses.counts
        uses = counts[slot] & Uses.MOST
        counts[slot] = min(uses + item.fetched, Uses.MOST) | Uses.FETCHED * item.fetched
        self._uses.times[slot] = item.last_access

    def _make_room(self, one: Transaction, size: int, limit: int, keep: int) -> None:
        freed = evicted = 0
        while one.totals.size_bytes + size > limit and (
            freed < size or evicted < _EVICTED_PER_WRITE
        ):
            gained = self.evict(one, keep)
            if not gained:
                return
            freed += gained
            evicted += 1

    def _drop(self, one: Transaction, key: bytes, item: Item, slot: int) -> None:
        one.txn.delete(key, db=self.items)
        one.txn.delete(_SLOT.pack(slot), db=self._slots)
        if item.expires_at:
            one.txn.delete(_EXPIRY.pack(item.expires_at, slot), db=self._expiries)
        self._uses.counts[slot] = 0
        one.spare.append(slot)
        one.totals.size_bytes -= size_of(key, len(item.data))
        one.totals.items -= 1

    def _sweep(self, one: Transaction, now: int, but: bytes) -> None:
        """Remove a few items that have expired, but not the one that is being updated."""
        for _ in range(_EXPIRED_PER_WRITE):
            with one.txn.cursor(self._expiries) as cursor:
                if not cursor.first() or _EXPIRY.unpack(cursor.key())[0] > now:
                    return
                key = cursor.value()
            blob = one.txn.get(key, db=self.items) if key != but else None
            if blob is None:
                return
            item, slot = unpacked(blob, self._uses)
            self._drop(one, key, item, slot)
            self._count_expired(one, True, item)

    def _count_expired(self, one: Transaction, is_expired: bool, item: Item) -> None:
        one.totals.expired += is_expired
        one.totals.expired_unfetched += is_expired and not item.fetched
