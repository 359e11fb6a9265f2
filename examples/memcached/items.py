"""How an item is laid out in the store."""

from __future__ import annotations

import struct

from attrs import define
from shared import Uses

from linepool.cache import Item

HEAD = struct.Struct("<IIQQIB")  # flags, stored at, expiry, cas, slot, bits
_TOTALS = struct.Struct("<11Q")
_STALE, _WON = 1, 2
BITS = [  # of an item: whether it was read, whether it is stale, whether a client recaches it
    (bool(bits & Uses.FETCHED), bool(bits & _STALE), bool(bits & _WON)) for bits in range(16)
]
_PAGE_BYTES = 4096
OVERHEAD = 128
"""Bytes of an item besides its value and its two keys."""


@define
class Totals:
    """Totals over all items; kept in the store.

    Attributes:
        cas: The last unique number.
        slots: Slots from here on have never been used.
        hand: The slot whose uses were halved last.
        size_bytes: Of all items, as their limit counts them.
        flush_at: Unix time in seconds from which on all items are gone; 0: no flush was ordered.
    """

    cas: int = 0
    slots: int = 0
    hand: int = 0
    size_bytes: int = 0
    items: int = 0
    stored: int = 0
    evicted: int = 0
    evicted_unfetched: int = 0
    expired: int = 0
    expired_unfetched: int = 0
    flush_at: int = 0

    @classmethod
    def unpacked(cls, blob: bytes | None) -> Totals:
        """Return those of a record, or those of an empty store."""
        return cls(*_TOTALS.unpack(blob)) if blob else cls()

    def packed(self) -> bytes:
        """Return them as a record."""
        return _TOTALS.pack(
            self.cas,
            self.slots,
            self.hand,
            self.size_bytes,
            self.items,
            self.stored,
            self.evicted,
            self.evicted_unfetched,
            self.expired,
            self.expired_unfetched,
            self.flush_at,
        )


def flush_time(blob: bytes | memoryview | None) -> int:
    """Return ``flush_at`` of the record of totals: all that a read needs of it."""
    return int.from_bytes(blob[-8:], "little") if blob else 0


def packed(item: Item, slot: int) -> bytes:
    """Return an item as a record."""
    bits = _STALE * item.stale + _WON * item.won
    head = HEAD.pack(item.flags, item.last_access, item.expires_at, item.cas, slot, bits)
    return head + item.data


def unpacked(blob: bytes | memoryview, uses: Uses) -> tuple[Item, int]:
    """Return the item of a record, and its slot."""
    flags, stored_at, expires_at, cas, slot, bits = HEAD.unpack_from(blob)
    last_access = uses.times[slot] or stored_at
    marks = BITS[bits | uses.counts[slot] & Uses.FETCHED]
    return Item(bytes(blob[HEAD.size :]), flags, expires_at, cas, last_access, *marks), slot


def size_of(key: bytes, size: int) -> int:
    """Return what an item with a value of ``size`` bytes counts towards the limit."""
    if size > _PAGE_BYTES // 2:  # LMDB stores a larger value in pages of its own
        size = -(-size // _PAGE_BYTES) * _PAGE_BYTES
    return size + 2 * len(key) + OVERHEAD


def numbered(item: Item, cas: int) -> Item:
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
