"""What requests wait for, by database and key; see ``linepool.Wait``."""

from __future__ import annotations

from linepool import Waiters

Woken = dict[bytes, int | None]
"""How many requests are to be woken, by topic; None: all of them."""
FLUSHED = b"flushed"
"""All keys were deleted."""


def add_wake(woken: Woken, topic: bytes, count: int | None) -> None:
    """Have further requests woken."""
    before = woken.get(topic, 0)
    woken[topic] = None if count is None or before is None else before + count


def wake(woken: Woken, waiters: Waiters) -> None:
    """Wake requests."""
    for topic, count in woken.items():
        if count is None:
            waiters.publish(topic)
        else:
            waiters.notify(topic, count)


def entry_topic(database: int, key: bytes) -> bytes:
    """Return the topic of a stream's new entries, for XREAD."""
    return b"entry:%d:%b" % (database, key)


def group_topic(database: int, key: bytes, group: bytes) -> bytes:
    """Return the topic of what a group has not yet delivered, for XREADGROUP."""
    return b"group:%d:%d:%b:%b" % (database, len(key), key, group)


def gone_topic(database: int, key: bytes) -> bytes:
    """Return the topic of the end of a stream or of one of its groups, for XREADGROUP."""
    return b"gone:%d:%b" % (database, key)


def element_topic(kind: int, database: int, key: bytes) -> bytes:
    """Return the topic of the elements of a list or a sorted set, for BLPOP and the like."""
    return b"element:%d:%d:%b" % (kind, database, key)
