"""DUMP and RESTORE: values in the form of Redis' dump file."""

from __future__ import annotations

import rdb
from application import app
from db import Db
from layout import HASH, LIST, SET, STREAM, STRING, ZSET, Header, parse_int
from strings import store
from transaction import Txn

from linepool import ClientError
from linepool.protocols.resp import OK, Status

_NOT_INTEGER = "value is not an integer or out of range"


def value_of(t: Txn, header: Header) -> rdb.Value:
    """Return the value of a key."""
    if header.kind == STRING:
        return header.value
    if header.kind == LIST:
        return t.slice(header, 0, header.count - 1)
    if header.kind == ZSET:
        return dict(t.ranked(header))
    items = t.items(header)
    return dict(items) if header.kind == HASH else [member for member, _ in items]


@app.handler(flags="readonly")
def dump(key: bytes, db: Db) -> bytes | None:
    """Return a value in the form of Redis' dump file."""
    with db.read() as t:
        header = t.find(key)
        if header is None:
            return None
        if header.kind == STREAM:
            raise ClientError("DUMP of streams is not served")
        return rdb.packed(header.kind, value_of(t, header))


def options_of(words: tuple[bytes, ...]) -> set[bytes]:
    """Return the options of a RESTORE; raises ClientError."""
    found = set()
    left = list(words)
    while left:
        option = left.pop(0).upper()
        if option in (b"REPLACE", b"ABSTTL"):
            found.add(option)
        elif option in (b"IDLETIME", b"FREQ") and left and not found & {b"IDLETIME", b"FREQ"}:
            number = parse_int(left.pop(0))
            if number is None:
                raise ClientError(_NOT_INTEGER)
            if option == b"IDLETIME" and number < 0:
                raise ClientError("Invalid IDLETIME value, must be >= 0")
            if option == b"FREQ" and not 0 <= number <= 255:
                raise ClientError("Invalid FREQ value, must be >= 0 and <= 255")
            found.add(option)
        else:
            raise ClientError("syntax error")
    return found


@app.handler(flags="write denyoom")
def restore(key: bytes, ttl: bytes, payload: bytes, *words: bytes, db: Db) -> Status:
    """Make a key of what DUMP returned: RESTORE key ttl value [REPLACE] [ABSTTL]."""
    options = options_of(words)
    with db.write() as t:
        old = t.find(key)
        if old is not None and b"REPLACE" not in options:
            raise ClientError("Target key name already exists.", code="BUSYKEY")
        time = parse_int(ttl)
        if time is None:
            raise ClientError(_NOT_INTEGER)
        if time < 0:
            raise ClientError("Invalid TTL value, must be >= 0")
        if not rdb.is_intact(payload):
            raise ClientError("DUMP payload version or checksum are wrong")
        try:
            kind, value = rdb.unpacked(payload)
        except rdb.ERRORS:
            raise ClientError("Bad data format") from None
        if old is not None:
            t.remove(old)
        expires_at = time + (0 if b"ABSTTL" in options else t.now_ms) if time else 0
        if expires_at and expires_at <= t.now_ms:
            if old is not None:
                t.notify("del", key)
            return OK
        fill(t, key, kind, value, expires_at)
        t.notify("restore", key)
    return OK


def fill(t: Txn, key: bytes, kind: int, value: rdb.Value, expires_at: int) -> None:
    """Store a value as a new key."""
    if isinstance(value, bytes):
        store(t, key, value, expires_at)
        return
    header = t.made(key, kind)
    if kind == LIST and isinstance(value, list):
        t.replace_list(header, value)
    if kind == SET:
        for member in value:
            t.put(header, member)
    for name, other in value.items() if isinstance(value, dict) else ():
        if isinstance(other, float):
            t.set_score(header, name, other)
        else:
            t.put(header, name, other)
    t.expire(header, expires_at)
    if kind in (LIST, ZSET):
        t.came(header, header.count)
