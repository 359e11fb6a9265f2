"""Commands for hashes."""

from __future__ import annotations

import random
from typing import Any

from application import app
from db import Db
from keyspace import check_cursor, scanned
from layout import HASH, INT64, parse_int
from strings import decimal, decimal_sum

from linepool import ClientError, Resp, Verb
from linepool.protocols.resp import OK, Status


@app.handler("HSET", "HMSET", flags="write denyoom fast")
def hset(key: bytes, field: bytes, value: bytes, *more: bytes, db: Db, verb: Verb) -> int | Status:
    """Set fields; return how many are new."""
    if len(more) % 2:
        raise ClientError(f"wrong number of arguments for '{verb.lower()}' command")
    words = (field, value, *more)
    with db.write() as t:
        header = t.made(key, HASH)
        new = sum(t.put(header, *pair) for pair in zip(words[::2], words[1::2], strict=True))
        t.save(header)
        t.notify("hset", key)
    return OK if verb == "HMSET" else new


@app.handler(flags="write denyoom fast")
def hsetnx(key: bytes, field: bytes, value: bytes, db: Db) -> int:
    """Set a field if it does not exist."""
    with db.write() as t:
        header = t.made(key, HASH)
        if t.get(header, field) is not None:
            return 0
        t.put(header, field, value)
        t.save(header)
        t.notify("hset", key)
        return 1


@app.handler(flags="readonly fast")
def hget(key: bytes, field: bytes, db: Db) -> bytes | None:
    """Get a field."""
    with db.read() as t:
        header = t.typed(key, HASH)
        return None if header is None else t.get(header, field)


@app.handler(flags="readonly fast")
def hmget(key: bytes, field: bytes, *fields: bytes, db: Db) -> list[bytes | None]:
    """Get several fields; null for absent ones."""
    with db.read() as t:
        header = t.typed(key, HASH)
        return [t.get(header, one) if header else None for one in (field, *fields)]


@app.handler(flags="readonly")
def hgetall(key: bytes, db: Db) -> dict[bytes, bytes]:
    """Get all fields with their values."""
    with db.read() as t:
        return dict(t.items(t.typed(key, HASH)))


@app.handler(flags="readonly")
def hkeys(key: bytes, db: Db) -> list[bytes]:
    """Get the names of all fields."""
    with db.read() as t:
        return [field for field, _ in t.items(t.typed(key, HASH))]


@app.handler(flags="readonly")
def hvals(key: bytes, db: Db) -> list[bytes]:
    """Get the values of all fields."""
    with db.read() as t:
        return [value for _, value in t.items(t.typed(key, HASH))]


@app.handler(flags="write fast")
def hdel(key: bytes, field: bytes, *fields: bytes, db: Db) -> int:
    """Delete fields; return how many there were."""
    with db.write() as t:
        header = t.typed(key, HASH)
        count = sum(t.pop(header, one) for one in (field, *fields)) if header else 0
        if header and count:
            t.notify("hdel", key)
            t.save(header)
        return count


@app.handler(flags="readonly fast")
def hexists(key: bytes, field: bytes, db: Db) -> int:
    """Return whether a field exists."""
    with db.read() as t:
        header = t.typed(key, HASH)
        return int(header is not None and t.get(header, field) is not None)


@app.handler(flags="readonly fast")
def hlen(key: bytes, db: Db) -> int:
    """Count the fields."""
    with db.read() as t:
        header = t.typed(key, HASH)
        return header.count if header else 0


@app.handler(flags="readonly fast")
def hstrlen(key: bytes, field: bytes, db: Db) -> int:
    """Return the length of a field's value."""
    with db.read() as t:
        header = t.typed(key, HASH)
        return len((header and t.get(header, field)) or b"")


@app.handler(flags="write denyoom fast")
def hincrby(key: bytes, field: bytes, increment: int, db: Db) -> int:
    """Add to the number in a field."""
    with db.write() as t:
        header = t.made(key, HASH)
        old = t.get(header, field)
        number = parse_int(b"0" if old is None else old)
        if number is None:
            raise ClientError("hash value is not an integer")
        number += increment
        if number not in INT64:
            raise ClientError("increment or decrement would overflow")
        t.put(header, field, b"%d" % number)
        t.save(header)
        t.notify("hincrby", key)
        return number


@app.handler(flags="write denyoom fast")
def hincrbyfloat(key: bytes, field: bytes, increment: bytes, db: Db) -> bytes:
    """Add to the decimal number in a field."""
    by = decimal(increment, "value is not a valid float")
    if not by.is_finite():
        raise ClientError("value is NaN or Infinity")
    with db.write() as t:
        header = t.made(key, HASH)
        old = t.get(header, field)
        number = decimal(b"0" if old is None else old, "hash value is not a float")
        text = decimal_sum(number, by)
        t.put(header, field, text)
        t.save(header)
        t.notify("hincrbyfloat", key)
        return text


@app.handler(flags="readonly")
def hscan(key: bytes, cursor: bytes, *words: bytes, db: Db) -> list[Any]:
    """List fields with their values."""
    check_cursor(cursor)
    with db.read() as t:
        header = t.typed(key, HASH)
        items = dict(t.items(header))
    names = scanned(words, list(items) if header else None)
    return ["0", [text for name in names for text in (name, items[name])]]


@app.handler(flags="readonly")
def hrandfield(key: bytes, db: Db, resp: Resp, *words: bytes) -> Any:
    """Return some fields at random: HRANDFIELD key [count [WITHVALUES]]."""
    count, with_values = count_and(words, b"WITHVALUES")
    with db.read() as t:
        items = t.items(t.typed(key, HASH))
    if count is None:
        return random.choice(items)[0] if items else None  # noqa: S311 - not a secret
    chosen = some(items, count)
    if not with_values:
        return [field for field, _ in chosen]
    if resp.version == 3:
        return [list(pair) for pair in chosen]
    return [text for pair in chosen for text in pair]


def some(items: list[Any], count: int) -> list[Any]:
    """Return ``count`` of the items at random, each once; a negative count may repeat items."""
    if count < 0:
        return random.choices(items, k=-count) if items else []  # noqa: S311
    return random.sample(items, min(count, len(items)))


def count_and(words: tuple[bytes, ...], option: bytes) -> tuple[int | None, bool]:
    """Return the optional count after a key, and whether the option follows it.

    Raises:
        ClientError: Another word follows.
    """
    if not words:
        return None, False
    count = parse_int(words[0])
    if count is None:
        raise ClientError("value is not an integer or out of range")
    if count == INT64[0]:
        raise ClientError(f"value is out of range, value must between {INT64[1]} and {INT64[-1]}")
    if len(words) > 2 or (len(words) == 2 and words[1].upper() != option):
        raise ClientError("syntax error")
    if abs(count) > 2**62:
        raise ClientError("value is out of range")
    return count, len(words) == 2
