"""Commands for sets."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from application import app
from db import Db
from hashes import count_and, some
from keyspace import check_cursor, positive, scanned
from layout import SET
from transaction import Txn

from linepool import ClientError, Verb


@app.handler(flags="write denyoom fast")
def sadd(key: bytes, member: bytes, *members: bytes, db: Db) -> int:
    """Add members; return how many are new."""
    with db.write() as t:
        header = t.made(key, SET)
        new = sum(t.put(header, one) for one in (member, *members))
        if new:
            t.save(header)
            t.notify("sadd", key)
        return new


@app.handler(flags="write fast")
def srem(key: bytes, member: bytes, *members: bytes, db: Db) -> int:
    """Remove members; return how many there were."""
    with db.write() as t:
        header = t.typed(key, SET)
        count = sum(t.pop(header, one) for one in (member, *members)) if header else 0
        if header and count:
            t.notify("srem", key)
            t.save(header)
        return count


@app.handler(flags="readonly fast")
def sismember(key: bytes, member: bytes, db: Db) -> int:
    """Return whether a set has a member."""
    return smismember(key, member, db=db)[0]


@app.handler(flags="readonly fast")
def smismember(key: bytes, member: bytes, *members: bytes, db: Db) -> list[int]:
    """Return for each member whether a set has it."""
    with db.read() as t:
        header = t.typed(key, SET)
        return [
            int(header is not None and t.get(header, one) is not None) for one in (member, *members)
        ]


@app.handler(flags="readonly")
def smembers(key: bytes, db: Db) -> set[bytes]:
    """Return all members."""
    with db.read() as t:
        return t.members(t.typed(key, SET))


@app.handler(flags="readonly fast")
def scard(key: bytes, db: Db) -> int:
    """Count the members."""
    with db.read() as t:
        header = t.typed(key, SET)
        return header.count if header else 0


@app.handler(flags="write fast")
def spop(key: bytes, db: Db, times: bytes | None = None) -> bytes | set[bytes] | None:
    """Remove and return members at random."""
    count = positive(times)
    with db.write() as t:
        header = t.typed(key, SET)
        if header is None:
            return None if count is None else set()
        taken = some(sorted(t.members(header)), 1 if count is None else count)
        for member in taken:
            t.pop(header, member)
        if taken:
            t.notify("spop", key)
            t.save(header)
        return taken[0] if count is None else set(taken)


@app.handler(flags="readonly")
def srandmember(key: bytes, db: Db, *words: bytes) -> bytes | list[bytes] | None:
    """Return members at random; a negative count may repeat them."""
    count, _ = count_and(words, b"\0")
    with db.read() as t:
        members = sorted(t.members(t.typed(key, SET)))
    if count is None:
        return random.choice(members) if members else None  # noqa: S311 - not a secret
    return some(members, count)


@app.handler(flags="write fast", keys=(1, 2, 1))
def smove(key: bytes, target: bytes, member: bytes, db: Db) -> int:
    """Move a member to another set."""
    with db.write() as t:
        source = t.typed(key, SET)
        if source is None:
            return 0
        header = t.typed(target, SET)
        if t.get(source, member) is None:
            return 0
        if key != target:
            header = header or t.made(target, SET)
            t.pop(source, member)
            t.notify("srem", key)
            t.save(source)
            if t.put(header, member):
                t.save(header)
                t.notify("sadd", target)
        return 1


_OPERATIONS: dict[str, Callable[..., set[bytes]]] = {
    "SINTER": set.intersection,
    "SUNION": set.union,
    "SDIFF": set.difference,
}


def combined(t: Txn, name: str, keys: tuple[bytes, ...]) -> set[bytes]:
    return _OPERATIONS[name](*[t.members(t.typed(key, SET)) for key in keys])


@app.handler("SINTER", "SUNION", "SDIFF", flags="readonly", keys=(1, -1, 1))
def combine(key: bytes, *keys: bytes, db: Db, verb: Verb) -> set[bytes]:
    """Return the intersection, union or difference of sets."""
    with db.read() as t:
        return combined(t, verb, (key, *keys))


@app.handler("SINTERSTORE", "SUNIONSTORE", "SDIFFSTORE", flags="write denyoom", keys=(1, -1, 1))
def combine_and_store(target: bytes, key: bytes, *keys: bytes, db: Db, verb: Verb) -> int:
    """Store the result of SINTER, SUNION or SDIFF; return the number of members."""
    with db.write() as t:
        members = combined(t, verb.removesuffix("STORE"), (key, *keys))
        header = t.emptied(target, SET)
        for member in members:
            t.put(header, member)
        t.save(header)
        if members:
            t.notify(verb.lower(), target)
        return len(members)


@app.handler(flags="readonly")
def sintercard(numkeys: bytes, key: bytes, *more: bytes, db: Db) -> int:
    """Count the common members of sets: SINTERCARD numkeys key ... [LIMIT limit]."""
    if not numkeys.isdigit() or int(numkeys) == 0:
        raise ClientError("numkeys should be greater than 0")
    words = (key, *more)
    count = int(numkeys)
    if count > len(words):
        raise ClientError("Number of keys can't be greater than number of args")
    options = words[count:]
    if options and (len(options) != 2 or options[0].upper() != b"LIMIT"):
        raise ClientError("syntax error")
    if options and not options[1].isdigit():
        raise ClientError("LIMIT can't be negative")
    with db.read() as t:
        size = len(combined(t, "SINTER", words[:count]))
    return min(size, int(options[1]) or size) if options else size


@app.handler(flags="readonly")
def sscan(key: bytes, cursor: bytes, *words: bytes, db: Db) -> list[Any]:
    """List members."""
    check_cursor(cursor)
    with db.read() as t:
        header = t.typed(key, SET)
        members = sorted(t.members(header)) if header else None
    return ["0", scanned(words, members)]
