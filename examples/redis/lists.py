"""Commands for lists."""

from __future__ import annotations

from typing import Any, Literal

from application import app
from db import Db
from keyspace import positive, several
from layout import INT64, LIST, Header, parse_int
from transaction import Txn

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
        t.notify(f"{verb[0].lower()}push", key)
        t.came(header, 1 + len(elements))
        return header.count


def take(t: Txn, header: Header, count: int, *, left: bool) -> list[bytes]:
    """Remove and return up to ``count`` elements at an end of a list."""
    popped = [t.pop_end(header, left=left) for _ in range(min(count, header.count))]
    if popped:
        t.notify("lpop" if left else "rpop", header.key)
        t.save(header)
    return popped


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
        popped = take(t, header, 1 if count is None else count, left=verb == "LPOP")
        return popped[0] if count is None else popped


def take_from_first(
    t: Txn, keys: tuple[bytes, ...], count: int, *, left: bool
) -> tuple[bytes, list[bytes]] | None:
    """Remove elements at an end of the first list that exists; return its key and them, or None."""
    for key in keys:
        if header := t.typed(key, LIST):
            return key, take(t, header, count, left=left)
    return None


@app.handler(flags="write")
def lmpop(numkeys: bytes, key: bytes, third: bytes, *words: bytes, db: Db) -> list[Any] | NullArray:
    """Pop from the first list that exists: LMPOP numkeys key [key ...] LEFT|RIGHT [COUNT count]."""
    keys, left, count = several((numkeys, key, third, *words), (b"LEFT", b"RIGHT"))
    with db.write() as t:
        found = take_from_first(t, keys, count, left=left)
    return NullArray() if found is None else list(found)


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
        t.notify("lset", key)
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
            t.notify("lrem", key)
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
            t.notify("ltrim", key)
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
        t.notify("linsert", key)
        t.came(header, 1)
        return len(values)


def moved(t: Txn, key: bytes, target: bytes, *, left: bool, to_left: bool) -> bytes | None:
    """Move an element from an end of a list to an end of another; return it, or None: there is none."""
    source = t.typed(key, LIST)
    if source is None:
        return None
    header = source if key == target else t.made(target, LIST)
    value = t.pop_end(source, left=left)
    t.push(header, value, left=to_left)
    if header is not source:
        t.save(header)
    t.notify("lpush" if to_left else "rpush", target)
    t.came(header, 1)
    t.notify("lpop" if left else "rpop", key)
    t.save(source)
    return value


@app.handler(flags="write denyoom", keys=(1, 2, 1))
def rpoplpush(key: bytes, target: bytes, db: Db) -> bytes | None:
    """Move the last element of a list to the head of another."""
    with db.write() as t:
        return moved(t, key, target, left=False, to_left=True)


@app.handler(flags="write denyoom", keys=(1, 2, 1))
def lmove(key: bytes, target: bytes, wherefrom: End, whereto: End, db: Db) -> bytes | None:
    """Move an element from an end of a list to an end of another."""
    with db.write() as t:
        return moved(t, key, target, left=wherefrom == "LEFT", to_left=whereto == "LEFT")


@app.handler(flags="readonly")
def lpos(
    key: bytes,
    element: bytes,
    db: Db,
    *,
    rank: int = 1,
    count: bytes | None = None,
    maxlen: bytes = b"0",
) -> int | list[int] | None:
    """Return the indexes of a value in a list."""
    if rank == 0:
        raise ClientError(
            "RANK can't be zero: use 1 to start from the first match, 2 from the second ..."
            " or use negative to start from the end of the list"
        )
    if rank == INT64[0]:
        raise ClientError(f"value is out of range, value must between {INT64[1]} and {INT64[-1]}")
    most = None if count is None else parse_int(count)
    if count is not None and (most is None or most < 0):
        raise ClientError("COUNT can't be negative")
    compared = parse_int(maxlen)
    if compared is None or compared < 0:
        raise ClientError("MAXLEN can't be negative")
    with db.read() as t:
        header = t.typed(key, LIST)
        values = whole_list(t, header) if header else []
    indexes = list(range(len(values)))
    if rank < 0:
        indexes.reverse()
    found = [index for index in indexes[: compared or None] if values[index] == element]
    found = found[abs(rank) - 1 :]
    if most is None:
        return found[0] if found else None
    return found[: most or None]
