"""Commands that wait for elements of lists and sorted sets."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import lists
import sorted_sets
from application import app
from db import Db
from keyspace import several
from layout import INT64, LIST, ZSET
from topics import element_topic
from transaction import Txn

from linepool import ClientError, Verb, Wait, Waited
from linepool.protocols.resp import NullArray

T = TypeVar("T")


def seconds_of(word: bytes) -> float | None:
    """Return a timeout; None: there is none.

    Raises:
        ClientError: It is negative, or not a number.
    """
    try:
        seconds = float(word)
    except ValueError:
        seconds = math.nan
    if math.isnan(seconds) or b"_" in word or word != word.strip():
        raise ClientError("timeout is not a float or out of range")
    if seconds < 0 or seconds * 1000 > INT64[-1]:
        raise ClientError("timeout is negative")
    return seconds or None


def taken_or_wait(
    db: Db,
    waited: Waited,
    kind: int,
    keys: Sequence[bytes],
    timeout: float | None,
    take: Callable[[Txn, bytes], T | None],
    *,
    returns_one: bool = False,
) -> T | Wait:
    """Take from the first key that has something, or have the request wait until one of them has.

    Args:
        db: The database.
        waited: Whether the request has waited: then it does not mind that a key is of another kind.
        kind: LIST or ZSET.
        keys: The keys, the preferred one first.
        timeout: Seconds; None: no limit.
        take: Takes something from a key; returns None if nothing is there any more.
        returns_one: In a MULTI, a single null stands for nothing, not one in place of an array.

    Raises:
        ClientError: A key is of another kind, or there are too many.
    """
    unblocking = db.unblocking(waited)
    with db.read() as t:
        null = None if returns_one and t.is_joint else NullArray()
        ready = next((key for key in keys if _is_there(t, key, kind, waited)), None)
    if ready is not None:
        found = _take(db, waited, element_topic(kind, db.database, ready), lambda t: take(t, ready))
        if found is not None:
            return found
    topics = [element_topic(kind, db.database, key) for key in keys]
    try:
        return unblocking.wait(Wait(*topics, timeout=timeout, then=null))
    except ValueError:
        raise ClientError("too many keys to wait for") from None


def _take(db: Db, waited: Waited, topic: bytes, take: Callable[[Txn], T | None]) -> T | None:
    try:
        with db.write() as t:
            return take(t)
    except ClientError:
        if waited.times:  # what is there is for the next request that waits
            with db.write() as t:
                t.wake(topic, 1)
        raise


def _is_there(t: Txn, key: bytes, kind: int, waited: Waited) -> bool:
    header = t.find(key) if waited.times else t.typed(key, kind)
    return header is not None and header.kind == kind


@app.handler("BLPOP", "BRPOP", flags="write noscript")
def blpop(
    key: bytes, second: bytes, *more: bytes, db: Db, waited: Waited, verb: Verb
) -> list[bytes] | NullArray | Wait:
    """Pop from the first list that has elements, or wait for one: BLPOP key [key ...] timeout."""
    words = (key, second, *more)
    timeout = seconds_of(words[-1])

    def pop(t: Txn, one: bytes) -> list[bytes] | None:
        found = lists.take_from_first(t, (one,), 1, left=verb == "BLPOP")
        return None if found is None else [one, *found[1]]

    return taken_or_wait(db, waited, LIST, words[:-1], timeout, pop)


@app.handler(flags="write")
def blmpop(
    timeout: bytes, numkeys: bytes, key: bytes, third: bytes, *words: bytes, db: Db, waited: Waited
) -> list[Any] | NullArray | Wait:
    """Wait for an LMPOP: BLMPOP timeout numkeys key [key ...] LEFT|RIGHT [COUNT count]."""
    seconds = seconds_of(timeout)
    keys, left, count = several((numkeys, key, third, *words), (b"LEFT", b"RIGHT"))

    def pop(t: Txn, one: bytes) -> list[Any] | None:
        found = lists.take_from_first(t, (one,), count, left=left)
        return None if found is None else list(found)

    return taken_or_wait(db, waited, LIST, keys, seconds, pop)


def _moved_or_wait(
    db: Db, waited: Waited, key: bytes, target: bytes, timeout: bytes, ends: tuple[bytes, bytes]
) -> bytes | NullArray | Wait | None:
    left, to_left = (end == b"LEFT" for end in ends)

    def move(t: Txn, one: bytes) -> bytes | None:
        return lists.moved(t, one, target, left=left, to_left=to_left)

    seconds = seconds_of(timeout)
    return taken_or_wait(db, waited, LIST, [key], seconds, move, returns_one=True)


@app.handler(flags="write denyoom noscript", keys=(1, 2, 1))
def blmove(
    key: bytes,
    target: bytes,
    wherefrom: bytes,
    whereto: bytes,
    timeout: bytes,
    db: Db,
    waited: Waited,
) -> bytes | NullArray | Wait | None:
    """Wait for an LMOVE."""
    ends = wherefrom.upper(), whereto.upper()
    if not {b"LEFT", b"RIGHT"}.issuperset(ends):
        raise ClientError("syntax error")
    return _moved_or_wait(db, waited, key, target, timeout, ends)


@app.handler(flags="write denyoom noscript", keys=(1, 2, 1))
def brpoplpush(
    key: bytes, target: bytes, timeout: bytes, db: Db, waited: Waited
) -> bytes | NullArray | Wait | None:
    """Wait for an RPOPLPUSH."""
    return _moved_or_wait(db, waited, key, target, timeout, (b"RIGHT", b"LEFT"))


@app.handler("BZPOPMIN", "BZPOPMAX", flags="write noscript fast")
def bzpop(
    key: bytes, second: bytes, *more: bytes, db: Db, waited: Waited, verb: Verb
) -> list[Any] | NullArray | Wait:
    """Pop from the first sorted set that has members, or wait for one: BZPOPMIN key [key ...] timeout."""
    words = (key, second, *more)
    timeout = seconds_of(words[-1])

    def pop(t: Txn, one: bytes) -> list[Any] | None:
        found = sorted_sets.take_from_first(t, (one,), 1, lowest=verb == "BZPOPMIN")
        return None if found is None else [one, *found[1][0]]

    return taken_or_wait(db, waited, ZSET, words[:-1], timeout, pop)


@app.handler(flags="write")
def bzmpop(
    timeout: bytes, numkeys: bytes, key: bytes, third: bytes, *words: bytes, db: Db, waited: Waited
) -> list[Any] | NullArray | Wait:
    """Wait for a ZMPOP: BZMPOP timeout numkeys key [key ...] MIN|MAX [COUNT count]."""
    seconds = seconds_of(timeout)
    keys, lowest, count = several((numkeys, key, third, *words), (b"MIN", b"MAX"))

    def pop(t: Txn, one: bytes) -> list[Any] | None:
        found = sorted_sets.take_from_first(t, (one,), count, lowest=lowest)
        return None if found is None else [one, [list(pair) for pair in found[1]]]

    return taken_or_wait(db, waited, ZSET, keys, seconds, pop)
