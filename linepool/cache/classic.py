"""The classic commands of memcached over a store: get, set, incr and so on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from attrs import evolve

from linepool.cache.store import Change, Item, OutOfMemory, Store
from linepool.protocols.memcache import Value
from linepool.session import Verb, body

# Seconds; a larger expiration time is a Unix time (protocol.txt, "Expiration times").
_MAX_RELATIVE_S = 60 * 60 * 24 * 30
_MAX_DIGITS = 20
_WRAP = 2**64
STORED, NOT_STORED, EXISTS, NOT_FOUND = "STORED", "NOT_STORED", "EXISTS", "NOT_FOUND"
OUT_OF_MEMORY = "SERVER_ERROR out of memory storing object"
NON_NUMERIC = "CLIENT_ERROR cannot increment or decrement non-numeric value"


def expiry(exptime: int, now: float) -> int:
    """Return when an item expires, in Unix seconds (0: never), from the time that a client gave.

    A negative number means at once; one beyond 30 days is already a Unix time.
    """
    if exptime == 0:
        return 0
    if exptime < 0:
        return 1
    return exptime if exptime > _MAX_RELATIVE_S else int(now) + exptime


def get(store: Store, verb: Verb, key: bytes, *keys: bytes) -> list[Value]:
    """Return the items of the keys."""
    with_cas = verb == "gets"
    wanted = (key, *keys)
    found = [
        Value(name, item.data, item.flags, item.cas if with_cas else None)
        for name, item in zip(wanted, store.fetch(wanted, int(time.time())), strict=True)
        if item is not None
    ]
    store.count("cmd_get", len(wanted))
    if found:
        store.count("get_hits", len(found))
    if len(found) < len(wanted):
        store.count("get_misses", len(wanted) - len(found))
    if store.is_detailed:
        count_gets(store, wanted, found)
    return found


def count_gets(store: Store, keys: Iterable[bytes], found: Iterable[Value]) -> None:
    """Count gets for ``stats detail dump``."""
    hits = {one.key for one in found}
    for key in keys:
        store.count_prefix(key, "get", key in hits)


def gat(batch: Store, verb: Verb, exptime: int, key: bytes, *keys: bytes) -> Iterable[Value]:
    """Return the items of the keys, and set when they expire."""
    now = time.time()
    expires_at = expiry(exptime, now)
    found = []
    for name in (key, *keys):
        read: list[Item] = []

        def touched(old: Item | None, read: list[Item] = read) -> Item | None:
            if old is None:
                return None
            read[:] = [old]
            return evolve(old, expires_at=expires_at, last_access=int(now), fetched=True)

        batch.update(name, touched)
        found += [
            Value(name, item.data, item.flags, item.cas if verb == "gats" else None)
            for item in read
        ]
    batch.count("cmd_touch", 1 + len(keys))
    batch.count("cmd_get", 1 + len(keys))
    batch.count("get_hits", len(found))
    batch.count("touch_hits", len(found))
    batch.count("get_misses", 1 + len(keys) - len(found))
    batch.count("touch_misses", 1 + len(keys) - len(found))
    if batch.is_detailed:
        count_gets(batch, (key, *keys), found)
    return found


def fresh(data: bytes, flags: int, expires_at: int, now: float) -> Item:
    """Return a newly stored item."""
    return Item(data, flags, expires_at, 0, int(now))


def extended(old: Item, verb: str, data: bytes, now: float) -> Item:
    """Return a new item with data appended or prepended."""
    both = data + old.data if verb == "prepend" else old.data + data
    return Item(both, old.flags, old.expires_at, 0, int(now))


def set_(
    batch: Store,
    verb: Verb,
    key: bytes,
    flags: int,
    exptime: int,
    size: int,
    data: bytes = body("size"),
) -> str:
    """Store an item: always (set), if absent (add), if present (replace), or joined to the old one."""
    now = time.time()
    outcome = [NOT_STORED]

    def change(old: Item | None) -> Item | None:
        if (verb == "add") == (old is not None) and verb != "set":
            return old
        outcome[0] = STORED
        if old is not None and verb in ("append", "prepend"):
            return extended(old, verb, data, now)
        return fresh(data, flags, expiry(exptime, now), now)

    batch.count("cmd_set")
    if batch.is_detailed:
        batch.count_prefix(key, "set")
    return stored(batch, key, change) or outcome[0]


def stored(store: Store, key: bytes, change: Change) -> str | None:
    """Update an item; return the error if the store has no room for it."""
    try:
        store.update(key, change)
    except OutOfMemory:
        store.count("store_no_memory")
        return OUT_OF_MEMORY
    return None


def cas(
    batch: Store,
    key: bytes,
    flags: int,
    exptime: int,
    size: int,
    unique: int,
    data: bytes = body("size"),
) -> str:
    """Store an item if it still has the unique number that the client read."""
    now = time.time()
    outcome = [NOT_FOUND]

    def change(old: Item | None) -> Item | None:
        if old is None:
            return None
        outcome[0] = STORED if old.cas == unique else EXISTS
        if old.cas != unique:
            return old
        return fresh(data, flags, expiry(exptime, now), now)

    batch.count("cmd_set")
    if batch.is_detailed:
        batch.count_prefix(key, "set")
    error = stored(batch, key, change)
    names = {STORED: "cas_hits", EXISTS: "cas_badval", NOT_FOUND: "cas_misses"}
    batch.count(names[outcome[0]])
    return error or outcome[0]


def parse_counter(data: bytes) -> int | None:
    """Return the number that an item holds, or None if incr and decr do not apply to it."""
    digits = data.strip(b" \t\n\v\f\r")
    if len(digits) > _MAX_DIGITS or not digits.isdigit() or int(digits) >= _WRAP:
        return None
    return int(digits)


def changed_by(value: int, delta: int, *, up: bool) -> int:
    """Return a number after incr (wraps at 2**64) or decr (stops at 0)."""
    return (value + delta) % _WRAP if up else max(0, value - delta)


def renumbered(old: Item, value: int) -> Item:
    """Return an item with a new number, padded with blanks to its old length as in memcached.

    A number that is longer than the old one makes a new item, which has not been read.
    """
    data = b"%d" % value
    if len(data) > len(old.data):
        return Item(data, old.flags, old.expires_at, 0, old.last_access)
    return evolve(old, data=data + b" " * (len(old.data) - len(data)), cas=0)


def incr(batch: Store, verb: Verb, key: bytes, delta: int) -> str:
    """Add to a number, or subtract from it, and return the new one."""
    up = verb == "incr"
    outcome = [NOT_FOUND]

    def change(old: Item | None) -> Item | None:
        if old is None:
            return None
        value = parse_counter(old.data)
        if value is None:
            outcome[0] = NON_NUMERIC
            return old
        value = changed_by(value, delta, up=up)
        outcome[0] = str(value)
        return renumbered(old, value)

    error = stored(batch, key, change)
    if outcome[0] != NON_NUMERIC:
        batch.count(f"{verb}_misses" if outcome[0] == NOT_FOUND else f"{verb}_hits")
    return error or outcome[0]


def delete(batch: Store, key: bytes) -> bool:
    """Delete an item."""
    deleted: list[Item] = []

    def change(old: Item | None) -> None:
        if old is not None:
            deleted.append(old)

    batch.update(key, change)
    batch.count("delete_hits" if deleted else "delete_misses")
    if batch.is_detailed:
        batch.count_prefix(key, "del")
    return bool(deleted)


def touch(batch: Store, key: bytes, exptime: int) -> bool:
    """Set when an item expires."""
    now = time.time()
    touched: list[Item] = []

    def change(old: Item | None) -> Item | None:
        if old is None:
            return None
        touched.append(old)
        return evolve(old, expires_at=expiry(exptime, now), last_access=int(now), fetched=True)

    batch.update(key, change)
    batch.count("cmd_touch")
    batch.count("touch_hits" if touched else "touch_misses")
    return bool(touched)


HANDLERS: dict[tuple[str, ...], Callable[..., Any]] = {
    ("get", "gets"): get,
    ("gat", "gats"): gat,
    ("set", "add", "replace", "append", "prepend"): set_,
    ("cas",): cas,
    ("incr", "decr"): incr,
    ("delete",): delete,
    ("touch",): touch,
}
