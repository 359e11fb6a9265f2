"""Lists of all items of a store, for lru_crawler and for ``stats cachedump`` and ``sizes``."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from urllib.parse import quote_from_bytes

from linepool.cache.store import Item, Store

_AT_ONCE = 500  # items that are read from one snapshot
_MOST_CACHEDUMP_BYTES = 2 * 1024 * 1024
_SIZE_STEP = 32  # width of a column of ``stats sizes``


def items_of(store: Store) -> Iterator[list[tuple[bytes, Item]]]:
    """Yield all items, some at a time, so that no snapshot is held while a client reads."""
    after = b""
    while part := store.scan(after, _AT_ONCE):
        yield part
        after = part[-1][0]


def metadump(store: Store) -> Iterator[bytes]:
    """Yield the facts about all items, one line each."""
    yield b"OK\r\n"
    for part in items_of(store):
        yield b"".join(_facts(key, item) for key, item in part)
    yield b"END\r\n"


def mgdump(store: Store) -> Iterator[bytes]:
    """Yield a ``mg`` command for each item."""
    yield b"OK\r\n"
    for part in items_of(store):
        yield b"".join(b"mg " + _as_sent(key) + b"\r\n" for key, _ in part)
    yield b"EN\r\n"


def cachedump(store: Store, most: int) -> bytes:
    """Return keys with sizes and expiry times of up to ``most`` items (0: of as many as fit)."""
    lines: list[bytes] = []
    size = 0
    for part in items_of(store):
        for key, item in part:
            line = b"ITEM %b [%d b; %d s]\r\n" % (_as_sent(key), len(item.data), item.expires_at)
            size += len(line)
            if size > _MOST_CACHEDUMP_BYTES or 0 < most <= len(lines):
                return b"".join([*lines, b"END\r\n"])
            lines.append(line)
    return b"".join([*lines, b"END\r\n"])


def sizes(store: Store) -> dict[str, object]:
    """Return how many items have which size, in steps of 32 bytes."""
    counts: dict[int, int] = {}
    for part in items_of(store):
        for key, item in part:
            step = -(-size_of(key, item) // _SIZE_STEP) * _SIZE_STEP
            counts[step] = counts.get(step, 0) + 1
    return {str(step): counts[step] for step in sorted(counts)}


def size_of(key: bytes, item: Item) -> int:
    """Return the size of an item as ``me`` and ``metadump`` show it."""
    return len(key) + len(item.data)


def _facts(key: bytes, item: Item) -> bytes:
    return b"key=%b exp=%d la=%d cas=%d fetch=%b cls=1 size=%d flags=%d \n" % (
        quote_from_bytes(key, safe="").encode(),
        item.expires_at or -1,
        item.last_access,
        item.cas,
        b"yes" if item.fetched else b"no",
        size_of(key, item),
        item.flags,
    )


def _as_sent(key: bytes) -> bytes:
    """Return a key as a client can send it: in base64, with the flag b, if it holds blanks or the like."""
    if all(byte > 0x20 and byte != 0x7F for byte in key):
        return key
    return base64.b64encode(key) + b" b"
