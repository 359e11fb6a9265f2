"""Commands for strings and counters."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation, Overflow, localcontext

from application import app
from db import Db
from keyspace import deadline
from layout import INT64, STRING, Header, parse_int
from transaction import Txn

from linepool import ClientError, Verb
from linepool.protocols.resp import OK, Status

MAX_STRING_BYTES = 512 * 1024 * 1024
_SYNTAX = "syntax error"
_NOT_FLOAT = "value is not a valid float"


def value_of(t: Txn, key: bytes) -> bytes | None:
    header = t.typed(key, STRING)
    return None if header is None else header.value


def store(
    t: Txn, key: bytes, value: bytes, expires_at: int = 0, *, is_edited: bool = False
) -> None:
    """Set a key to a string, replacing a value of any kind; ``is_edited``: a part of it was changed."""
    if len(value) > MAX_STRING_BYTES:
        raise ClientError("string exceeds maximum allowed size (proto-max-bulk-len)")
    old = t.find(key)
    if old is not None and old.kind != STRING:
        t.clear(old)
        old.kind = STRING
    header = old or Header(key, STRING, t.next_number())
    header.value = value
    header.count = is_edited
    if header.expires_at or expires_at:
        t.expire(header, expires_at)
    else:
        t.save(header)


def changed(
    t: Txn, header: Header | None, key: bytes, value: bytes, *, is_edited: bool = False
) -> None:
    """Set a key to a new string, keeping its expiry."""
    store(t, key, value, header.expires_at if header else 0, is_edited=is_edited)


@app.handler(flags="readonly fast")
def get(key: bytes, db: Db) -> bytes | memoryview | None:
    """Get a string."""
    return db.read().string(key)


@app.handler(flags="write denyoom")
def set_(
    key: bytes,
    value: bytes,
    db: Db,
    *,
    ex: int | None = None,
    px: int | None = None,
    exat: int | None = None,
    pxat: int | None = None,
    nx: bool = False,
    xx: bool = False,
    keepttl: bool = False,
    get: bool = False,
) -> Status | bytes | None:
    """Set a string, and when it expires."""
    if ex is px is exat is pxat is None and not (nx or xx or keepttl or get):
        with db.write() as t:
            store(t, key, value)
            t.notify("set", key)
        return OK
    times = {"ex": ex, "px": px, "exat": exat, "pxat": pxat}
    given = [name for name, time in times.items() if time is not None]
    if len(given) + keepttl > 1 or (nx and xx):
        raise ClientError(_SYNTAX)
    with db.write() as t:
        old = t.find(key)
        before = None
        if get and old is not None:
            before = value_of(t, key)
        expires_at = deadline(t, given[0], times[given[0]] or 0, "set") if given else 0
        if (nx and old) or (xx and not old):
            return before
        if keepttl and old is not None:
            expires_at = old.expires_at
        store(t, key, value, expires_at)
        t.notify("set", key)
        if given:
            t.notify("expire", key)
    return before if get else OK


@app.handler(flags="write denyoom fast")
def setnx(key: bytes, value: bytes, db: Db) -> int:
    """Set a string if the key does not exist."""
    with db.write() as t:
        if t.find(key):
            return 0
        store(t, key, value)
        t.notify("set", key)
        return 1


@app.handler("SETEX", "PSETEX", flags="write denyoom")
def setex(key: bytes, time: int, value: bytes, db: Db, verb: Verb) -> Status:
    """Set a string that expires after a time."""
    with db.write() as t:
        unit = "ex" if verb == "SETEX" else "px"
        store(t, key, value, deadline(t, unit, time, verb.lower()))
        t.notify("set", key)
        t.notify("expire", key)
    return OK


@app.handler(flags="write denyoom fast")
def getset(key: bytes, value: bytes, db: Db) -> bytes | None:
    """Set a string; return the old one."""
    with db.write() as t:
        old = value_of(t, key)
        store(t, key, value)
        t.notify("set", key)
        return old


@app.handler(flags="write fast")
def getdel(key: bytes, db: Db) -> bytes | None:
    """Get a string, and delete it."""
    with db.write() as t:
        header = t.typed(key, STRING)
        if header is None:
            return None
        t.remove(header)
        t.notify("del", key)
        return header.value


@app.handler(flags="write fast")
def getex(
    key: bytes,
    db: Db,
    *,
    ex: bytes | None = None,
    px: bytes | None = None,
    exat: bytes | None = None,
    pxat: bytes | None = None,
    persist: bool = False,
) -> bytes | None:
    """Get a string, and set when it expires."""
    times = {"ex": ex, "px": px, "exat": exat, "pxat": pxat}
    given = [name for name, time in times.items() if time is not None]
    if len(given) + persist > 1:
        raise ClientError(_SYNTAX)
    with db.write() as t:
        header = t.typed(key, STRING)
        if header is None:
            return None
        if given:
            time = parse_int(times[given[0]] or b"")
            if time is None:
                raise ClientError("value is not an integer or out of range")
            expires_at = deadline(t, given[0], time, "getex")
            if expires_at <= t.now_ms:
                t.remove(header)
                t.notify("del", key)
            else:
                t.expire(header, expires_at)
                t.notify("expire", key)
        elif persist and header.expires_at:
            t.expire(header, 0)
            t.notify("persist", key)
        return header.value


@app.handler(flags="readonly fast", keys=(1, -1, 1))
def mget(key: bytes, *keys: bytes, db: Db) -> list[bytes | None]:
    """Get several strings; null for absent ones."""
    with db.read() as t:
        headers = [t.find(one) for one in (key, *keys)]
    return [header.value if header and header.kind == STRING else None for header in headers]


@app.handler("MSET", "MSETNX", flags="write denyoom", keys=(1, -1, 2))
def mset(key: bytes, value: bytes, *more: bytes, db: Db, verb: Verb) -> Status | int:
    """Set several strings; MSETNX: only if none of the keys exists."""
    if len(more) % 2:
        raise ClientError(f"wrong number of arguments for '{verb.lower()}' command")
    words = (key, value, *more)
    with db.write() as t:
        if verb == "MSETNX" and any(t.find(one) for one in words[::2]):
            return 0
        for name, text in zip(words[::2], words[1::2], strict=True):
            store(t, name, text)
            t.notify("set", name)
    return OK if verb == "MSET" else 1


@app.handler(flags="write denyoom fast")
def append(key: bytes, value: bytes, db: Db) -> int:
    """Append to a string; return its length."""
    with db.write() as t:
        header = t.typed(key, STRING)
        text = (header.value if header else b"") + value
        changed(t, header, key, text, is_edited=True)
        t.notify("append", key)
        return len(text)


@app.handler(flags="readonly fast")
def strlen(key: bytes, db: Db) -> int:
    """Return a string's length."""
    with db.read() as t:
        return len(value_of(t, key) or b"")


@app.handler("GETRANGE", "SUBSTR", flags="readonly")
def getrange(key: bytes, start: int, end: int, db: Db) -> bytes:
    """Return a part of a string; negative offsets count from its end."""
    with db.read() as t:
        text = value_of(t, key) or b""
    if start < 0 and end < 0 and start > end:
        return b""
    first = max(0, start + len(text) if start < 0 else start)
    last = max(0, end + len(text) if end < 0 else end)
    return text[first : last + 1] if text else b""


@app.handler(flags="write denyoom")
def setrange(key: bytes, offset: int, value: bytes, db: Db) -> int:
    """Overwrite a part of a string; return its length."""
    if offset < 0:
        raise ClientError("offset is out of range")
    if offset + len(value) > MAX_STRING_BYTES:
        raise ClientError("string exceeds maximum allowed size (proto-max-bulk-len)")
    with db.write() as t:
        header = t.typed(key, STRING)
        text = header.value if header else b""
        if value:
            text = text[:offset].ljust(offset, b"\0") + value + text[offset + len(value) :]
            changed(t, header, key, text, is_edited=True)
            t.notify("setrange", key)
        return len(text)


def count_by(t: Txn, key: bytes, by: int) -> int:
    header = t.typed(key, STRING)
    text = header.value if header else b"0"
    number = parse_int(text)
    if number is None:
        raise ClientError("value is not an integer or out of range")
    number += by
    if number not in INT64:
        raise ClientError("increment or decrement would overflow")
    changed(t, header, key, b"%d" % number)
    t.notify("incrby", key)
    return number


@app.handler(flags="write denyoom fast")
def incr(key: bytes, db: Db) -> int:
    """Add 1 to a number."""
    with db.write() as t:
        return count_by(t, key, 1)


@app.handler(flags="write denyoom fast")
def decr(key: bytes, db: Db) -> int:
    """Subtract 1 from a number."""
    with db.write() as t:
        return count_by(t, key, -1)


@app.handler(flags="write denyoom fast")
def incrby(key: bytes, increment: int, db: Db) -> int:
    """Add to a number."""
    with db.write() as t:
        return count_by(t, key, increment)


@app.handler(flags="write denyoom fast")
def decrby(key: bytes, decrement: int, db: Db) -> int:
    """Subtract from a number."""
    if decrement == -(2**63):
        raise ClientError("decrement would overflow")
    with db.write() as t:
        return count_by(t, key, -decrement)


def decimal(text: bytes, wrong: str) -> Decimal:
    """Return a decimal number.

    Raises:
        ClientError: It is not one; ``wrong`` is the error's text.
    """
    try:
        number = Decimal(text.decode())
    except (InvalidOperation, UnicodeDecodeError):
        raise ClientError(wrong) from None
    if number.is_nan() or text.strip() != text or b"_" in text:
        raise ClientError(wrong)
    return number


def decimal_sum(number: Decimal, increment: Decimal) -> bytes:
    """Return the sum of two numbers, formatted like INCRBYFLOAT's."""
    if not (number.is_finite() and increment.is_finite()):
        raise ClientError("increment would produce NaN or Infinity")
    with localcontext() as context:
        context.prec = 400
        try:
            shown = f"{round(number + increment, 17):f}"
        except (InvalidOperation, Overflow):  # it has more digits
            raise ClientError("increment would produce NaN or Infinity") from None
    if "." in shown:
        shown = shown.rstrip("0").rstrip(".")
    return b"0" if shown == "-0" else shown.encode()


@app.handler(flags="write denyoom fast")
def incrbyfloat(key: bytes, increment: bytes, db: Db) -> bytes:
    """Add to a decimal number."""
    with db.write() as t:
        header = t.typed(key, STRING)
        number = decimal(header.value if header else b"0", _NOT_FLOAT)
        text = decimal_sum(number, decimal(increment, _NOT_FLOAT))
        changed(t, header, key, text)
        t.notify("incrbyfloat", key)
        return text
