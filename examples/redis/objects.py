"""OBJECT: how a value is stored. It is the form that Redis 7.0 would most likely have chosen."""

from __future__ import annotations

from application import app
from db import Db
from layout import HASH, LIST, SET, STREAM, STRING, ZSET, Header, parse_int
from settings import get_setting
from transaction import Txn

from linepool import ClientError

_NO_FREQUENCY = (
    "An LFU maxmemory policy is not selected, access frequency not tracked. Please note that when"
    " switching between policies at runtime LRU and LFU data will take some time to adjust."
)
_EMBEDDED_BYTES = 44  # of a string
_SHARED = 2**31 - 1  # the references of a value that Redis shares
_SHARED_NUMBERS = range(10_000)
_COMPACT = {
    HASH: {"hash-max-listpack-entries": "128", "hash-max-listpack-value": "64"},
    ZSET: {"zset-max-listpack-entries": "128", "zset-max-listpack-value": "64"},
    SET: {"set-max-intset-entries": "512"},
}
"""The settings for the compact form of a kind: the most elements, and the most bytes of one."""


@app.handler("OBJECT|ENCODING", flags="readonly")
def encoding(key: bytes, db: Db) -> str | None:
    """Return the name of the form in which Redis would keep a value."""
    with db.read() as t:
        header = t.find(key)
        return None if header is None else encoding_of(t, header)


@app.handler("OBJECT|REFCOUNT", flags="readonly")
def references(key: bytes, db: Db) -> int | None:
    """Return how many references a value would have in Redis."""
    with db.read() as t:
        header = t.find(key)
    if header is None:
        return None
    number = parse_int(header.value) if header.kind == STRING else None
    return _SHARED if number in _SHARED_NUMBERS else 1


@app.handler("OBJECT|IDLETIME", flags="readonly")
def idle_time(key: bytes, db: Db) -> int | None:
    """Return 0 for a key that exists: times of accesses are not kept."""
    with db.read() as t:
        return None if t.find(key) is None else 0


@app.handler("OBJECT|FREQ", flags="readonly")
def frequency(key: bytes, db: Db) -> None:
    """Refuse to say how often a key is used: accesses are not counted."""
    with db.read() as t:
        if t.find(key) is not None:
            raise ClientError(_NO_FREQUENCY)


def encoding_of(t: Txn, header: Header) -> str:
    if header.kind == STRING:
        if header.count:  # it was changed in place
            return "raw"
        if parse_int(header.value) is not None:
            return "int"
        return "embstr" if len(header.value) <= _EMBEDDED_BYTES else "raw"
    if header.kind == LIST:
        return "quicklist"
    if header.kind == STREAM:
        return "stream"
    limits = [int(get_setting(t, name, most)) for name, most in _COMPACT[header.kind].items()]
    is_small = header.count <= limits[0]
    if header.kind == SET:
        is_compact = is_small and all(parse_int(one) is not None for one in t.members(header))
        return "intset" if is_compact else "hashtable"
    items = t.items(header) if is_small else []
    texts = [text for pair in items for text in (pair if header.kind == HASH else pair[:1])]
    if is_small and all(len(text) <= limits[1] for text in texts):
        return "listpack"
    return "hashtable" if header.kind == HASH else "skiplist"
