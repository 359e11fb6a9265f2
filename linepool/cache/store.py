"""The items of a memcached server, and the interface of the store that holds them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, MutableMapping, Sequence

from attrs import define, evolve

SETTINGS = {
    "maxbytes": 0,
    "verbosity": 0,
    "detail_enabled": 0,
    "lru_crawler": 1,
    "track_sizes": 0,
}
"""The settings that clients may change, with their values at the start."""


class OutOfMemory(Exception):  # noqa: N818 - memcached's own word for it
    """The store has no room for an item; the client gets SERVER_ERROR out of memory storing object."""


@define
class Item:
    """One value and its metadata. Never changed: a store replaces it with another item.

    Not frozen, because every read creates one: 0.4 microseconds, frozen 1.2.

    Attributes:
        data: The value, without its line ending.
        flags: 32 bits that the client chose.
        expires_at: Unix time in seconds; 0: never.
        cas: Its unique number; 0 in an item given to the store: assign the next number.
        last_access: Unix time in seconds.
        fetched: Read since it was stored.
        stale: Invalidated by a client, but still served.
        won: One client has been asked to recache it (flag W).
    """

    data: bytes
    flags: int = 0
    expires_at: int = 0
    cas: int = 0
    last_access: int = 0
    fetched: bool = False
    stale: bool = False
    won: bool = False


Change = Callable[[Item | None], Item | None]
"""From the stored item (None: absent) to the item to store (None: delete)."""


class Store(ABC):
    """Holds the items; all workers share one store."""

    @abstractmethod
    def read(self, keys: Sequence[bytes]) -> list[Item | None]:
        """Return the items in order, from one snapshot; None: absent, expired or flushed."""

    def fetch(self, keys: Sequence[bytes], now: int) -> list[Item | None]:
        """Return the items in order, as they were before this, and note that they have been read.

        Override it where a store can note that without an update.

        Args:
            keys: As for ``read``.
            now: Unix time in seconds, for ``Item.last_access``.
        """
        items = self.read(keys)
        for key, item in zip(keys, items, strict=True):
            if item is not None and not (item.fetched and item.last_access == now):
                self.update(key, _noted(item, now))
        return items

    @abstractmethod
    def update(self, key: bytes, change: Change) -> Item | None:
        """Replace an item with ``change(old)`` atomically; return the item stored now.

        Args:
            key: 1 to 250 bytes.
            change: Gets None for an item that is absent, expired or flushed. If it returns the same
                object that it got, nothing is written; None deletes; an Item with cas 0 is stored
                under the next unique number, greater than all before; any other cas is kept. It may
                be called more than once; the last call counts.

        Raises:
            OutOfMemory: The old item is unchanged.
        """

    @abstractmethod
    def flush(self, at: int) -> None:
        """At the time ``at`` (Unix seconds), drop every item that was stored before it.

        If ``at`` is not in the future, drop all items now; items stored afterwards stay.
        """

    def count(self, name: str, by: int = 1) -> None:  # noqa: B027 - optional for a store
        """Add to one of the server's counters: get_hits, cmd_set, ..."""

    def scan(self, after: bytes, most: int) -> list[tuple[bytes, Item]] | None:
        """Return up to ``most`` items with keys behind ``after``, in the order of their keys.

        None: this store cannot list its items; then clients get ``CLIENT_ERROR lru crawler disabled``.
        """
        del after, most
        return None

    @property
    def settings(self) -> MutableMapping[str, int]:
        """What clients may change, see ``SETTINGS``; of all workers, or of this process."""
        found: dict[str, int] = self.__dict__.setdefault("_settings", dict(SETTINGS))
        return found

    @property
    def is_detailed(self) -> bool:
        """Whether ``count_prefix`` is to be called: clients may ask for it by ``stats detail on``."""
        return bool(self.settings["detail_enabled"])

    def limit_memory(self, size_bytes: int) -> bool:
        """Change the maximum size of all items; return whether that is possible."""
        del size_bytes
        return False

    def count_prefix(self, key: bytes, name: str, hit: bool = False) -> None:  # noqa: B027 - optional
        """Count a ``get``, ``set`` or ``del`` of a key for ``stats detail dump``, by the key's prefix."""

    def prefixes(self) -> Mapping[bytes, tuple[int, int, int, int]]:
        """Return what ``count_prefix`` has counted: gets, hits among them, sets and deletions."""
        return {}

    def statistics(self, what: bytes = b"") -> Mapping[str, object] | None:
        """Return names and values for ``stats``, or None for an unknown group.

        Args:
            what: The group: b"" for the general ones, b"items", b"slabs", b"settings", b"conns".
        """
        return {} if not what else None

    def reset_statistics(self) -> None:  # noqa: B027 - optional for a store
        """Set the counters to 0."""


def _noted(item: Item, now: int) -> Change:
    """Return the change that notes a read of an item."""

    def change(old: Item | None) -> Item | None:
        if old is None or old.cas != item.cas:
            return old
        return evolve(old, fetched=True, last_access=now)

    return change
