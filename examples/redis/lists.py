"""Commands for lists."""

from __future__ import annotations

from typing import Literal

from application import app
from db import LIST, Db, Header, Txn, whole
from keyspace import positive

from linepool import ClientError, Verb
from linepool.protocols.resp import OK, NullArray, Status

End = Literal["LEFT", "RIGHT"]


def clip(header: Header | None, start: int, stop: int) -> tuple[int, int]:
    """Return two places in a list as indexes from 0; negative ones count from its end."""
    count = header.count if header else 0
    first = max(0, start + count if start < 0 else start)
    return first, min(stop + count if stop < 0 else stop, count - 1)


@app.handler("LPUSH", "RPUSH", "LPUSHX", "RPUSHX", flags="write denyoom fast")
def push(key: bytes, element: bytes, *elements: bytes, db: Db, verb: Verb) -> int:
    """Put elements at an end of a list; with X: if there is one. Give its length."""
    with db.write() as t:
        header = t.typed(key, LIST)
        if header is None:
            if verb.endswith("X"):
                return 0
            header = t.made(key, LIST)
        for one in (element, *elements):
            t.push(header, one, left=verb[0] == "L")
        t.save(header)
        return header.count


@app.handler("LPOP", "RPOP", flags="write fast")
def pop(
    key: bytes, db: Db, verb: Verb, times: bytes | None = None
) -> bytes | list[bytes] | NullArray | None:
    """Take elements from an end of a list."""
    count = positive(times)
    with db.write() as t:
        header = t.typed(key, LIST)
        if header is None:
            return None if count is None else NullArray()
        wanted = 1 if count is None else min(count, header.count)
        taken = [t.take(header, left=verb == "LPOP") for _ in range(wanted)]
        if taken:
            t.save(header)
        return taken[0] if count is None else taken


@app.handler(flags="readonly fast")
def llen(key: bytes, db: Db) -> int:
    """Give a list's length."""
    with db.read() as t:
        header = t.typed(key, LIST)
        return header.count if header else 0


@app.handler(flags="readonly")
def lrange(key: bytes, start: int, stop: int, db: Db) -> list[bytes]:
    """Give a part of a list."""
    with db.read() as t:
        header = t.typed(key, LIST)
        return t.slice(header, *clip(header, start, stop))


@app.handler(flags="readonly")
def lindex(key: bytes, index: int, db: Db) -> bytes | None:
    """Give one element of a list."""
    with db.read() as t:
        header = t.typed(key, LIST)
        if header is None or not -header.count <= index < header.count:
            return None
        return t.at(header, index % header.count)


@app.handler(flags="write denyoom")
def lset(key: bytes, place: bytes, element: bytes, db: Db) -> Status:
    """Replace one element of a list."""
    with db.write() as t:
        header = t.typed(key, LIST)
        if header is None:
            raise ClientError("no such key")
        index = whole(place)
        if index is None:
            raise ClientError("value is not an integer or out of range")
        if not -header.count <= index < header.count:
            raise ClientError("index out of range")
        t.set_at(header, index % header.count, element)
        t.save(header)
    return OK


def whole_list(t: Txn, header: Header) -> list[bytes]:
    return t.slice(header, 0, header.count - 1)


@app.handler(flags="write")
def lrem(key: bytes, count: int, element: bytes, db: Db) -> int:
    """Drop elements with a value: all (0), or so many from the head, or (negative) the tail."""
    with db.write() as t:
        header = t.typed(key, LIST)
        if header is None:
            return 0
        values = whole_list(t, header)
        places = [place for place, value in enumerate(values) if value == element]
        if count:
            places = places[:count] if count > 0 else places[count:]
        if places:
            gone = set(places)
            t.replace_list(header, [v for place, v in enumerate(values) if place not in gone])
            t.save(header)
        return len(places)


@app.handler(flags="write")
def ltrim(key: bytes, start: int, stop: int, db: Db) -> Status:
    """Keep a part of a list."""
    with db.write() as t:
        header = t.typed(key, LIST)
        if header is not None:
            first, last = clip(header, start, stop)
            for _ in range(min(header.count, header.count - 1 - last)):
                t.take(header, left=False)
            for _ in range(min(header.count, first)):
                t.take(header, left=True)
            t.save(header)
    return OK


@app.handler(flags="write denyoom")
def linsert(
    key: bytes, where: Literal["BEFORE", "AFTER"], pivot: bytes, element: bytes, db: Db
) -> int:
    """Put an element beside another; give the length, or -1: the other is not there."""
    with db.write() as t:
        header = t.typed(key, LIST)
        if header is None:
            return 0
        values = whole_list(t, header)
        if pivot not in values:
            return -1
        values.insert(values.index(pivot) + (where == "AFTER"), element)
        t.replace_list(header, values)
        t.save(header)
        return len(values)


@app.handler(flags="write denyoom", keys=(1, 2, 1))
def rpoplpush(key: bytes, target: bytes, db: Db) -> bytes | None:
    """Move the last element of a list to the head of another."""
    return lmove(key, target, "RIGHT", "LEFT", db)


@app.handler(flags="write denyoom", keys=(1, 2, 1))
def lmove(key: bytes, target: bytes, wherefrom: End, whereto: End, db: Db) -> bytes | None:
    """Move an element from an end of a list to an end of another."""
    with db.write() as t:
        source = t.typed(key, LIST)
        if source is None:
            return None
        header = source if key == target else t.made(target, LIST)
        value = t.take(source, left=wherefrom == "LEFT")
        t.push(header, value, left=whereto == "LEFT")
        t.save(source)
        if header is not source:
            t.save(header)
        return value


@app.handler(flags="readonly")
def lpos(
    key: bytes,
    element: bytes,
    db: Db,
    *,
    rank: int = 1,
    count: int | None = None,
    maxlen: int = 0,
) -> int | list[int] | None:
    """Give the places of a value in a list."""
    if rank == 0:
        raise ClientError(
            "RANK can't be zero: use 1 to start from the first match, 2 from the second ..."
            " or use negative to start from the end of the list"
        )
    if count is not None and count < 0:
        raise ClientError("COUNT can't be negative")
    if maxlen < 0:
        raise ClientError("MAXLEN can't be negative")
    with db.read() as t:
        header = t.typed(key, LIST)
        values = whole_list(t, header) if header else []
    places = list(range(len(values)))
    if rank < 0:
        places.reverse()
    found = [place for place in places[: maxlen or None] if values[place] == element]
    found = found[abs(rank) - 1 :]
    if count is None:
        return found[0] if found else None
    return found[: count or None]
