"""A store in this process's memory, for tests of the protocol."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from attrs import evolve

from linepool.cache import Change, Item, OutOfMemory, Store


class MemoryStore(Store):
    def __init__(self, clock=time.time, max_bytes: int = 1 << 30) -> None:
        self.items: dict[bytes, tuple[Item, int]] = {}
        self.counters: Counter[str] = Counter()
        self._clock = clock
        self._max_bytes = max_bytes
        self._cas = 0
        self._flush_at = 0
        self._number = 0
        self._flushed_number = 0

    def read(self, keys: Sequence[bytes]) -> list[Item | None]:
        return [self._live(key) for key in keys]

    def update(self, key: bytes, change: Change) -> Item | None:
        old = self._live(key)
        new = change(old)
        if new is old:
            return old
        if new is None:
            self.items.pop(key, None)
            return None
        if len(new.data) > self._max_bytes:
            raise OutOfMemory
        if not new.cas:
            self._cas += 1
            new = evolve(new, cas=self._cas)
        self._number += 1
        self.items[key] = new, self._number
        return new

    def flush(self, at: int) -> None:
        if at <= self._clock():
            self.items.clear()
            self._flush_at = 0
        else:
            self._flush_at = at

    def count(self, name: str, by: int = 1) -> None:
        self.counters[name] += by

    def statistics(self, what: bytes = b"") -> Mapping[str, object] | None:
        return dict(self.counters) if not what else None

    def reset_statistics(self) -> None:
        self.counters.clear()

    def _live(self, key: bytes) -> Item | None:
        now = self._clock()
        if self._flush_at and self._flush_at <= now:
            self.items.clear()
            self._flush_at = 0
        item, _ = self.items.get(key, (None, 0))
        if item is not None and 0 < item.expires_at <= now:
            del self.items[key]
            return None
        return item


def memory_store() -> Iterator[Store]:
    yield MemoryStore()
