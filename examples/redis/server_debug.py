"""DEBUG and MEMORY: what tests of clients, and tools, ask for."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from application import app
from db import Db
from key_store import Store
from layout import STRING, Header
from objects import encoding_of

from linepool import ClientError, Session
from linepool.protocols.resp import OK, Status, Verbatim

_KEY_BYTES = 56  # about what Redis needs for a key beside its name and value
_ELEMENT_BYTES = 48
_NOT_ALLOWED = (
    'DEBUG command not allowed. If the enable-debug-command option is set to "local", you can run it from'
    " a local connection, otherwise you need to set this option in the configuration file, and then"
    " restart the server."
)
_LOCAL = ("127.", "[::1]", "unix")
_ODDITIES: dict[str, Callable[[], Any]] = {
    "STRING": lambda: "Hello World",
    "INTEGER": lambda: 12345,
    "DOUBLE": lambda: 3.141,
    "NULL": lambda: None,
    "ARRAY": lambda: [0, 1, 2],
    "SET": lambda: dict.fromkeys((0, 1, 2)).keys(),
    "MAP": lambda: {0: False, 1: True, 2: False},
    "TRUE": lambda: True,
    "FALSE": lambda: False,
    "VERBATIM": lambda: Verbatim("This is a verbatim\nstring"),
    "BIGNUM": lambda: 1234567999999999999999999999999999999,
}


def _check_local(session: Session) -> None:
    if not session.peer.startswith(_LOCAL):
        raise ClientError(_NOT_ALLOWED)


@app.handler("DEBUG|SLEEP", timeout=0)
def sleep(seconds: float, session: Session) -> Status:
    """Keep this worker busy for some seconds; the others go on."""
    _check_local(session)
    time.sleep(max(0.0, seconds))
    return OK


@app.handler(
    *("DEBUG|SET-ACTIVE-EXPIRE", "DEBUG|QUICKLIST-PACKED-THRESHOLD", "DEBUG|REPLYBUFFER"),
    *("DEBUG|RELOAD", "DEBUG|LOADAOF", "DEBUG|CHANGE-REPL-ID", "DEBUG|PAUSE-CRON"),
    *("DEBUG|SET-DISABLE-DENY-SCRIPTS", "DEBUG|STRINGMATCH-LEN", "DEBUG|REPLICATE"),
)
def accept(session: Session, *words: bytes) -> Status:
    """Accept what makes no difference here."""
    _check_local(session)
    return OK


@app.handler("DEBUG|OBJECT")
def describe_object(key: bytes, session: Session, db: Db) -> Status:
    """Describe how a value would be kept."""
    _check_local(session)
    with db.read() as t:
        header = t.find(key)
        if header is None:
            raise ClientError("no such key")
        encoding = encoding_of(t, header)
    return Status(
        f"Value at:0x{header.id:x} refcount:1 encoding:{encoding} serializedlength:{_size(header)}"
        " lru:0 lru_seconds_idle:0"
    )


@app.handler(
    "DEBUG|JMAP", "DEBUG|SEGFAULT", "DEBUG|PANIC", "DEBUG|RESTART", "DEBUG|CRASH-AND-RECOVER"
)
def refuse(session: Session, *words: bytes) -> None:
    """Refuse what would end the server."""
    _check_local(session)
    raise ClientError("not served")


@app.handler("DEBUG|PROTOCOL")
def send_oddity(kind: str, session: Session) -> object:
    """Return a value of a type of the protocol, such as BIGNUM or VERBATIM."""
    _check_local(session)
    if kind.upper() not in _ODDITIES:
        raise ClientError(
            "Wrong protocol type name. Please use one of the following: string|integer|double|null|array"
            "|set|map|attrib|push|verbatim|true|false"
        )
    return _ODDITIES[kind.upper()]()


def _size(header: Header) -> int:
    """Return about how many bytes a value would take in Redis."""
    if header.kind == STRING:
        return len(header.value)
    return header.count * _ELEMENT_BYTES


@app.handler("MEMORY|USAGE")
def memory_usage(key: bytes, db: Db, *words: bytes) -> int | None:
    """Return about how many bytes a key and its value would take in Redis."""
    if words and (len(words) != 2 or words[0].upper() != b"SAMPLES"):
        raise ClientError("syntax error")
    if words and not words[1].isdigit():
        raise ClientError("value is not an integer or out of range")
    with db.read() as t:
        header = t.find(key)
        return None if header is None else _KEY_BYTES + len(key) + _size(header)


@app.handler("MEMORY|STATS")
def memory_facts(db: Db, store: Store) -> dict[str, Any]:
    """Return figures of the store."""
    used = store.used_bytes()
    with db.read() as t:
        sizes = t.sizes()
    keys = sum(count for count, _ in sizes)
    return {
        "peak.allocated": used,
        "total.allocated": used,
        "startup.allocated": 0,
        "replication.backlog": 0,
        "clients.slaves": 0,
        "clients.normal": 0,
        "cluster.links": 0,
        "aof.buffer": 0,
        "lua.caches": 0,
        "functions.caches": 0,
        "overhead.total": 0,
        "keys.count": keys,
        "keys.bytes-per-key": used // keys if keys else 0,
        "dataset.bytes": used,
        "dataset.percentage": 100.0,
        "peak.percentage": 100.0,
        "allocator.allocated": used,
        "allocator.active": used,
        "allocator.resident": used,
        "allocator-fragmentation.ratio": 1.0,
        "allocator-fragmentation.bytes": 0,
        "allocator-rss.ratio": 1.0,
        "allocator-rss.bytes": 0,
        "rss-overhead.ratio": 1.0,
        "rss-overhead.bytes": 0,
        "fragmentation": 1.0,
        "fragmentation.bytes": 0,
    }


@app.handler("MEMORY|DOCTOR")
def memory_advice() -> Verbatim:
    """Say that nothing is wrong that could be known."""
    return Verbatim("The keys are in LMDB, which has no fragmentation to report.")


@app.handler("MEMORY|PURGE")
def purge() -> Status:
    """Accept, for there is nothing to give back."""
    return OK


@app.handler("MEMORY|MALLOC-STATS")
def allocator_facts() -> str:
    """Say that there is no allocator with figures of its own."""
    return "Stats not supported for the current allocator"
