"""Commands for keys of any kind: expiry, names, SCAN, transactions."""

from __future__ import annotations

import random
from itertools import chain, islice

from application import app
from db import Db
from layout import KINDS, parse_int
from transaction import Txn

from linepool import ClientError, PubSub, Resp, Session, Verb
from linepool.protocols.resp import OK, NullArray, Queued, Status
from linepool.protocols.resp.commands import discard as drop_queue
from linepool.pubsub.glob import matches

_SYNTAX = "syntax error"
_NOT_INTEGER = "value is not an integer or out of range"
_MAX_MS = 2**63 - 1
_COUNTED_OFF = 1000  # keys


def deadline(t: Txn, unit: str, time: int, command: str) -> int:
    """Return when a key expires, as Unix time in ms, from a time and its unit (ex, pxat, ...).

    Raises:
        ClientError: The time is out of range.
    """
    ms = time if unit.startswith("p") else time * 1000
    if not unit.endswith("at"):
        ms += t.now_ms
    if time <= 0 or ms > _MAX_MS:
        raise ClientError(f"invalid expire time in '{command}' command")
    return ms


@app.handler("DEL", "UNLINK", flags="write", keys=(1, -1, 1))
def delete(key: bytes, *keys: bytes, db: Db) -> int:
    """Delete keys; return how many there were."""
    with db.write() as t:
        count = 0
        for one in (key, *keys):
            if header := t.find(one):
                t.remove(header)
                t.notify("del", one)
                count += 1
        return count


@app.handler("EXISTS", "TOUCH", flags="readonly fast", keys=(1, -1, 1))
def exists(key: bytes, *keys: bytes, db: Db) -> int:
    """Count the keys that exist."""
    with db.read() as t:
        return sum(t.find(one) is not None for one in (key, *keys))


@app.handler("TYPE", flags="readonly fast")
def kind_of(key: bytes, db: Db) -> Status:
    """Return the kind of a key's value."""
    with db.read() as t:
        header = t.find(key)
    return Status("none" if header is None else KINDS[header.kind])


@app.handler("EXPIRE", "PEXPIRE", "EXPIREAT", "PEXPIREAT", flags="write fast")
def expire(key: bytes, moment: bytes, db: Db, verb: Verb, *conditions: str) -> int:
    """Set when a key expires; with NX, XX, GT or LT only if the condition holds."""
    wanted = {word.upper() for word in conditions}
    for word in conditions:
        if word.upper() not in ("NX", "XX", "GT", "LT"):
            raise ClientError(f"Unsupported option {word}")
    if "NX" in wanted and len(wanted) > 1:
        raise ClientError("NX and XX, GT or LT options at the same time are not compatible")
    if {"GT", "LT"} <= wanted:
        raise ClientError("GT and LT options at the same time are not compatible")
    time = parse_int(moment)
    if time is None:
        raise ClientError(_NOT_INTEGER)
    with db.write() as t:
        ms = time if verb.startswith("P") else time * 1000
        is_possible = ms >= -(2**63)
        ms += 0 if verb.endswith("AT") else t.now_ms
        if not is_possible or ms > _MAX_MS:
            raise ClientError(f"invalid expire time in '{verb.lower()}' command")
        header = t.find(key)
        if header is None:
            return 0
        now = header.expires_at
        refused = (
            ("NX" in wanted and now)
            or ("XX" in wanted and not now)
            or ("GT" in wanted and (not now or ms <= now))
            or ("LT" in wanted and now and ms >= now)
        )
        if refused:
            return 0
        if ms <= t.now_ms:
            t.remove(header)
            t.notify("del", key)
        else:
            t.expire(header, ms)
            t.notify("expire", key)
        return 1


@app.handler("TTL", "PTTL", "EXPIRETIME", "PEXPIRETIME", flags="readonly fast")
def ttl(key: bytes, db: Db, verb: Verb) -> int:
    """Return when a key expires; -1: never; -2: the key does not exist."""
    with db.read() as t:
        header = t.find(key)
        if header is None:
            return -2
        if not header.expires_at:
            return -1
        if verb.endswith("TIME"):
            return header.expires_at if verb.startswith("P") else (header.expires_at + 500) // 1000
        left = header.expires_at - t.now_ms
        return left if verb == "PTTL" else (left + 500) // 1000


@app.handler(flags="write fast")
def persist(key: bytes, db: Db) -> int:
    """Remove the expiry of a key."""
    with db.write() as t:
        header = t.find(key)
        if header is None or not header.expires_at:
            return 0
        t.expire(header, 0)
        t.notify("persist", key)
        return 1


@app.handler("RENAME", "RENAMENX", flags="write", keys=(1, 2, 1))
def rename(key: bytes, newkey: bytes, db: Db, verb: Verb) -> Status | int:
    """Rename a key; RENAMENX: only if the new name is free."""
    with db.write() as t:
        header = t.find(key)
        if header is None:
            raise ClientError("no such key")
        old = t.find(newkey)
        if verb == "RENAMENX" and old:
            return 0
        if old and key != newkey:
            t.remove(old)
        if key != newkey:
            t.unlink(header)
            t.link(header, newkey)
            t.notify("rename_from", key)
            t.notify("rename_to", newkey)
    return OK if verb == "RENAME" else 1


@app.handler("KEYS", flags="readonly")
def list_keys(pattern: bytes, db: Db) -> list[bytes]:
    """List the keys whose names match a pattern."""
    with db.read() as t:
        return [header.key for _, header in t.all_keys() if matches(pattern, header.key)]


@app.handler(flags="readonly")
def scan(
    cursor: bytes,
    db: Db,
    *,
    match: bytes = b"*",
    count: int = 10,
    type: str | None = None,
) -> list[object]:
    """List some keys, after the cursor of the next call; 0: no more keys."""
    if not cursor.isdigit():
        raise ClientError("invalid cursor")
    if count < 1:
        raise ClientError(_SYNTAX)
    with db.read() as t:
        found = list(islice(t.all_keys(int(cursor)), count))
    after = found[-1][0] if len(found) == count else 0
    names = [
        header.key
        for _, header in found
        if matches(match, header.key) and (type is None or KINDS[header.kind] == type.lower())
    ]
    return [str(after), names]


def positive(word: bytes | None) -> int | None:
    """Return the count that a command was given, or None.

    Raises:
        ClientError: The word is not a number, or negative.
    """
    if word is None:
        return None
    count = parse_int(word)
    if count is None or count < 0:
        raise ClientError("value is out of range, must be positive")
    return count


def several(
    words: tuple[bytes, ...], ends: tuple[bytes, ...]
) -> tuple[tuple[bytes, ...], bool, int]:
    """Return the keys of an LMPOP or ZMPOP, whether the first of two ends is meant, and the count.

    Args:
        words: ``numkeys key [key ...] end [COUNT count]``.
        ends: The names of the two ends.

    Raises:
        ClientError: The words are something else.
    """
    number = parse_int(words[0])
    if number is None or number < 1:
        raise ClientError("numkeys should be greater than 0")
    keys, options = words[1 : number + 1], [word.upper() for word in words[number + 1 :]]
    if not options or options[0] not in ends:
        raise ClientError(_SYNTAX)
    if len(options) > 1 and (len(options) != 3 or options[1] != b"COUNT"):
        raise ClientError(_SYNTAX)
    count = parse_int(options[2]) if len(options) > 1 else 1
    if count is None or count < 1:
        raise ClientError("count should be greater than 0")
    return keys, options[0] == ends[0], count


def check_cursor(cursor: bytes) -> None:
    """Raise ClientError for what is not a cursor of HSCAN, SSCAN or ZSCAN."""
    if not cursor.isdigit():
        raise ClientError("invalid cursor")


def scanned(words: tuple[bytes, ...], names: list[bytes] | None) -> list[bytes]:
    """Return the elements that HSCAN, SSCAN or ZSCAN lists: all that match, at once.

    ``names`` are those of all elements; None: the key does not exist.

    Raises:
        ClientError: The options are wrong.
    """
    if names is None:
        return []
    if len(words) % 2:
        raise ClientError(_SYNTAX)
    for option, value in zip(words[::2], words[1::2], strict=True):
        if option.upper() == b"MATCH":
            names = [name for name in names if matches(value, name)]
        elif option.upper() == b"COUNT":
            if not value.isdigit():
                raise ClientError("value is not an integer or out of range")
            if int(value) < 1:
                raise ClientError(_SYNTAX)
        else:
            raise ClientError(_SYNTAX)
    return names


@app.handler(flags="readonly")
def randomkey(db: Db) -> bytes | None:
    """Return a random key; of many keys, one near a random number, for they cannot be counted off."""
    with db.read() as t:
        count = t.count()
        start = random.randint(0, t.last_number()) if count > _COUNTED_OFF else 0  # noqa: S311 - not a secret
        skipped = random.randrange(min(count, _COUNTED_OFF)) if count else 0  # noqa: S311
        further = chain(t.all_keys(start), t.all_keys() if start else ())
        found = next(islice(further, skipped, None), None)
    return None if found is None else found[1].key


@app.handler(flags="noscript fast", keys=(1, -1, 1))
def watch(key: bytes, *keys: bytes, db: Db, session: Session) -> Status:
    """Make the next EXEC fail if one of the keys changes before it."""
    with db.read() as t:
        versions = session.get("watched", {})
        for one in (key, *keys):
            versions.setdefault(f"{db.database}:{one.decode('latin-1')}", version(t, one))
        session["watched"] = versions
    return OK


@app.handler(flags="noscript fast")
def unwatch(session: Session) -> Status:
    """Stop watching keys."""
    session.pop("watched", None)
    return OK


@app.handler(flags="noscript fast")
def discard(session: Session, resp: Resp) -> Status:
    """Drop the commands queued since MULTI."""
    session.pop("watched", None)
    return drop_queue(resp)


@app.handler("EXEC", flags="noscript")
def execute(queued: Queued, db: Db, session: Session) -> list[object] | NullArray:
    """Run the commands queued since MULTI in one transaction."""
    watched = session.pop("watched", {})
    with db.together() as t:
        for name, before in watched.items():
            database, _, key = name.partition(":")
            with t.within(int(database)):
                if version(t, key.encode("latin-1")) != before:
                    return NullArray()
        return queued()


@app.handler
def publish(channel: bytes, message: bytes, pubsub: PubSub, db: Db) -> int:
    """Send a message to a channel; return the number of subscriptions it goes to."""
    if db.publish(channel, message):
        return pubsub.receivers(channel)
    return pubsub.publish(channel, message)


def version(t: Txn, key: bytes) -> int:
    header = t.find(key)
    return 0 if header is None else header.version
