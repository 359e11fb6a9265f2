"""What a memcached server keeps: items, and the interface of the store that keeps them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence

from attrs import define


class OutOfMemory(Exception):  # noqa: N818 - memcached's own word for it
    """There is no room for an item; the client reads SERVER_ERROR out of memory storing object."""


@define
class Item:
    """One value and what memcached knows of it. Nobody changes it; a store puts another in its place.

    It is not frozen, for then to make one would take 1.2 microseconds in place of 0.4, at each read.

    Attributes:
        data: The value, without the line ending behind it.
        flags: 32 bits, the client's own.
        expires_at: Unix time in seconds; 0: never.
        cas: Its unique number; 0 in an item given to the store: the next number, please.
        last_access: Unix time in seconds.
        fetched: Read since it was stored.
        stale: Invalidated by a client, and still served.
        won: One client has been told to fetch it anew.
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
"""From the item that is there (None: none) to the one that shall be (None: none)."""


class Store(ABC):
    """Where the items are; all workers share one."""

    @abstractmethod
    def read(self, keys: Sequence[bytes]) -> list[Item | None]:
        """Return the items in order, from one snapshot; None: not there, expired or flushed."""

    @abstractmethod
    def update(self, key: bytes, change: Change) -> Item | None:
        """Replace an item by ``change(old)`` with no other update between; return what is there now.

        Args:
            key: 1 to 250 bytes.
            change: Given None for an item that is absent, expired or flushed. When it returns the
                very object that it was given, nothing is written; None deletes; an Item with cas 0
                is stored under the next unique number, greater than any before; another cas is
                kept. It may be called more than once; the last call counts.

        Raises:
            OutOfMemory: The old item is as it was.
        """

    @abstractmethod
    def flush(self, at: int) -> None:
        """From the moment ``at`` on (Unix seconds), drop every item that was stored before it.

        When ``at`` is not in the future, all that is there now goes, and what is stored next stays.
        """

    def count(self, name: str, by: int = 1) -> None:  # noqa: B027 - a store may do without
        """Add to one of the server's counters: get_hits, cmd_set, ..."""

    def statistics(self, what: bytes = b"") -> Mapping[str, object] | None:
        """Return names and values for ``stats``, or None: there is no such group.

        Args:
            what: The group: b"" for the general ones, b"items", b"slabs", b"sizes", b"settings",
                b"conns".
        """
        return {} if not what else None

    def reset_statistics(self) -> None:  # noqa: B027 - a store may do without
        """Set the counters to 0."""
