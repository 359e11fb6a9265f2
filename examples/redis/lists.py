"""Commands for lists."""

from __future__ import annotations

from typing import Literal

from application import app
from db import Db, Txn
from keyspace import positive
from layout import LIST, Header, parse_int

from linepool import ClientError, Verb
from linepool.protocols.resp import OK, NullArray, Status

End = Literal["LEFT", "RIGHT"]


def clip(header: Header | None, start: int, stop: int) -> tuple[int, int]:
    """Return two positions in a list as indexes from 0; negative ones count from its end."""
    count = header.count if header else 0
    first = max(0, start + count if start < 0 else start)
    return first, min(stop + count if stop < 0 else stop, count - 1)


@app.handler("LPUSH", "RPUSH", "LPUSHX", "RPUSHX", flags="write denyoom fast")
def push(key: bytes, element: bytes, *elements: bytes, db: Db, verb: Verb) -> int:
    """Add elements at an end of a list (with X: only if the list exists); return its length."""
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
    """Remove and return elements at an end of a list."""
    count = positive(times)
    with db.write() as t:
        header = t.typed(key, LIST)
        if header is None:
            return None if count is None else NullArray()
        wanted = 1 if count is None else min(count, header.count)
        popped = [t.pop_end(header, left=verb == "LPOP") for _ in range(wanted)]
        if popped:
            t.save(header)
        return popped[0] if count is None else popped


@app.handler(flags="readonly fast")
def llen(key: bytes, db: Db) -> int:
    """Return a list's length."""
    with db.read() as t:
        header = t.typed(key, LIST)
        return header.count if header else 0


@app.handler(flags="readonly")
def lrange(key: bytes, start: int, stop: int, db: Db) -> list[bytes]:
    """Return a part of a list."""
    with db.read() as t:
        header = t.typed(key, LIST)
        return t.slice(header, *clip(header, start, stop))


@app.handler(flags="readonly")
def lindex(key: bytes, index: int, db: Db) -> bytes | None:
    """Return one element of a list."""
    with db.read() as t:
        header = t.typed(key, LIST)
        if header is None or not -header.count <= index < header.count:
            return None
        return t.at(header, index % header.count)


@app.handler(flags="write denyoom")
def lset(key: bytes, position: bytes, element: bytes, db: Db) -> Status:
    """Replace one element of a list."""
    with db.write() as t:
        header = t.typed(key, LIST)
        if header is None:
            raise ClientError("no such key")
        index = parse_int(position)
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
    """Remove elements by value: all (0), or the first ``count``, or (negative) the last."""
    with db.write() as t:
        header = t.typed(key, LIST)
        if header is None:
            return 0
        values = whole_list(t, header)
        indexes = [index for index, value in enumerate(values) if value == element]
        if count:
            indexes = indexes[:count] if count > 0 else indexes[count:]
        if indexes:
            removed = set(indexes)
            t.replace_list(header, [v for index, v in enumerate(values) if index not in removed])
            t.save(header)
        return len(indexes)


@app.handler(flags="write")
def ltrim(key: bytes, start: int, stop: int, db: Db) -> Status:
    """Keep a part of a list and remove the rest."""
    with db.write() as t:
        header = t.typed(key, LIST)
        if header is not None:
            first, last = clip(header, start, stop)
            for _ in range(min(header.count, header.count - 1 - last)):
                t.pop_end(header, left=False)
            for _ in range(min(header.count, first)):
                t.pop_end(header, left=True)
            t.save(header)
    return OK


@app.handler(flags="write denyoom")
def linsert(
    key: bytes, where: Literal["BEFORE", "AFTER"], pivot: bytes, element: bytes, db: Db
) -> int:
    """Insert an element before or after another; return the length, or -1 if the other is absent."""
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
        value = t.pop_end(source, left=wherefrom == "LEFT")
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
    """Return the indexes of a value in a list."""
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
    indexes = list(range(len(values)))
    if rank < 0:
        indexes.reverse()
    found = [index for index in indexes[: maxlen or None] if values[index] == element]
    found = found[abs(rank) - 1 :]
    if count is None:
        return found[0] if found else None
    return found[: count or None]
