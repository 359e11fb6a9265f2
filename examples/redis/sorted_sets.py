"""Commands that change sorted sets, or return single members."""

from __future__ import annotations

import math
import random
from typing import Any

from application import app
from db import Db
from hashes import count_and, some
from keyspace import check_cursor, positive, scanned, several
from layout import ZSET, Header
from transaction import Txn

from linepool import ClientError, Resp, Verb
from linepool.protocols.resp import NullArray
from linepool.protocols.resp.values import float_text

_NOT_FLOAT = "value is not a valid float"
_SYNTAX = "syntax error"
Pairs = list[tuple[bytes, float]]


def parse_score(word: bytes) -> float:
    """Return a score.

    Raises:
        ClientError: The word is not a number.
    """
    try:
        value = float(word)
    except ValueError:
        value = math.nan
    if math.isnan(value) or b"_" in word or word.strip() != word:
        raise ClientError(_NOT_FLOAT)
    return value


def shown(pairs: Pairs, resp: Resp, *, scores: bool) -> list[Any]:
    """Return members for a reply; with scores as pairs, in RESP 2 as a flat list."""
    if not scores:
        return [member for member, _ in pairs]
    if resp.version == 3:
        return [list(pair) for pair in pairs]
    return [part for pair in pairs for part in pair]


@app.handler(flags="write denyoom fast")
def zadd(key: bytes, first: bytes, second: bytes, *more: bytes, db: Db) -> int | float | None:
    """Set scores: ZADD key [NX|XX] [GT|LT] [CH] [INCR] score member ..."""
    words = (first, second, *more)
    options: set[bytes] = set()
    at = 0
    while at < len(words) and words[at].upper() in (b"NX", b"XX", b"GT", b"LT", b"CH", b"INCR"):
        options.add(words[at].upper())
        at += 1
    pairs = words[at:]
    if not pairs or len(pairs) % 2:
        raise ClientError(_SYNTAX)
    if {b"NX", b"XX"} <= options:
        raise ClientError("XX and NX options at the same time are not compatible")
    if len(options & {b"NX", b"GT", b"LT"}) > 1:
        raise ClientError("GT, LT, and/or NX options at the same time are not compatible")
    if b"INCR" in options and len(pairs) > 2:
        raise ClientError("INCR option supports a single increment-element pair")
    scores = [parse_score(word) for word in pairs[::2]]
    with db.write() as t:
        header = t.made(key, ZSET)
        new = changed = 0
        result: float | None = None
        for score, member in zip(scores, pairs[1::2], strict=True):
            result, is_new, is_changed = set_one(t, header, member, score, options)
            new += is_new
            changed += is_changed
        if new or changed:
            t.save(header)
            t.notify("zincr" if b"INCR" in options else "zadd", key)
            t.came(header, new)
    if b"INCR" in options:
        return result
    return new + changed if b"CH" in options else new


def set_one(
    t: Txn, header: Header, member: bytes, score: float, options: set[bytes]
) -> tuple[float | None, bool, bool]:
    """Set a member's score unless the options forbid it.

    Returns:
        The score, or None if the options forbid it; whether the member is new; whether its score
        has changed.
    """
    old = t.score(header, member)
    if (old is None and b"XX" in options) or (old is not None and b"NX" in options):
        return None, False, False
    if b"INCR" in options and old is not None:
        score += old
        if math.isnan(score):
            raise ClientError("resulting score is not a number (NaN)")
    if old is not None and (
        (b"GT" in options and score <= old) or (b"LT" in options and score >= old)
    ):
        return None, False, False
    if old is None or old != score:
        t.set_score(header, member, score)
    return score, old is None, old is not None and old != score


@app.handler(flags="write denyoom fast")
def zincrby(key: bytes, increment: float, member: bytes, db: Db) -> float:
    """Add to a member's score."""
    with db.write() as t:
        header = t.made(key, ZSET)
        score, is_new, is_changed = set_one(t, header, member, increment, {b"INCR"})
        t.save(header)
        if is_new or is_changed:
            t.notify("zincr", key)
            t.came(header, is_new)
        assert score is not None
        return score


@app.handler(flags="write fast")
def zrem(key: bytes, member: bytes, *members: bytes, db: Db) -> int:
    """Remove members; return how many there were."""
    with db.write() as t:
        header = t.typed(key, ZSET)
        count = sum(t.pop_score(header, one) for one in (member, *members)) if header else 0
        if header and count:
            t.notify("zrem", key)
            t.save(header)
        return count


@app.handler(flags="readonly fast")
def zscore(key: bytes, member: bytes, db: Db) -> float | None:
    """Return a member's score."""
    return zmscore(key, member, db=db)[0]


@app.handler(flags="readonly fast")
def zmscore(key: bytes, member: bytes, *members: bytes, db: Db) -> list[float | None]:
    """Return the scores of several members; null for absent ones."""
    with db.read() as t:
        header = t.typed(key, ZSET)
        return [t.score(header, one) if header else None for one in (member, *members)]


@app.handler(flags="readonly fast")
def zcard(key: bytes, db: Db) -> int:
    """Count the members."""
    with db.read() as t:
        header = t.typed(key, ZSET)
        return header.count if header else 0


@app.handler("ZRANK", "ZREVRANK", flags="readonly fast")
def zrank(key: bytes, member: bytes, db: Db, verb: Verb) -> int | None:
    """Return a member's rank by score, from 0."""
    with db.read() as t:
        header = t.typed(key, ZSET)
        if header is None or t.score(header, member) is None:
            return None
        members = [one for one, _ in t.ranked(header)]
    rank = members.index(member)
    return rank if verb == "ZRANK" else len(members) - 1 - rank


def take(t: Txn, header: Header, count: int, *, lowest: bool) -> Pairs:
    """Remove and return up to ``count`` members with the lowest or the highest scores."""
    pairs = t.ranked(header)
    if not lowest:
        pairs.reverse()
    pairs = pairs[:count]
    for member, _ in pairs:
        t.pop_score(header, member)
    if pairs:
        t.notify("zpopmin" if lowest else "zpopmax", header.key)
        t.save(header)
    return pairs


@app.handler("ZPOPMIN", "ZPOPMAX", flags="write fast")
def zpop(key: bytes, db: Db, verb: Verb, resp: Resp, times: bytes | None = None) -> list[Any]:
    """Remove and return the members with the lowest or the highest scores."""
    count = positive(times)
    with db.write() as t:
        header = t.typed(key, ZSET)
        if header is None:
            return []
        pairs = take(t, header, 1 if count is None else count, lowest=verb == "ZPOPMIN")
    if count is None:
        return [part for pair in pairs for part in pair]
    return shown(pairs, resp, scores=True)


def take_from_first(
    t: Txn, keys: tuple[bytes, ...], count: int, *, lowest: bool
) -> tuple[bytes, Pairs] | None:
    """Remove members of the first sorted set that exists; return its key and them, or None."""
    for key in keys:
        if header := t.typed(key, ZSET):
            return key, take(t, header, count, lowest=lowest)
    return None


@app.handler(flags="write")
def zmpop(numkeys: bytes, key: bytes, third: bytes, *words: bytes, db: Db) -> list[Any] | NullArray:
    """Pop from the first sorted set that exists: ZMPOP numkeys key [key ...] MIN|MAX [COUNT count]."""
    keys, lowest, count = several((numkeys, key, third, *words), (b"MIN", b"MAX"))
    with db.write() as t:
        found = take_from_first(t, keys, count, lowest=lowest)
    return NullArray() if found is None else [found[0], [list(pair) for pair in found[1]]]


@app.handler(flags="readonly")
def zrandmember(key: bytes, db: Db, resp: Resp, *words: bytes) -> Any:
    """Return members at random: ZRANDMEMBER key [count [WITHSCORES]]."""
    count, scores = count_and(words, b"WITHSCORES")
    with db.read() as t:
        pairs = t.ranked(t.typed(key, ZSET))
    if count is None:
        return random.choice(pairs)[0] if pairs else None  # noqa: S311 - not a secret
    return shown(some(pairs, count), resp, scores=scores)


@app.handler(flags="readonly")
def zscan(key: bytes, cursor: bytes, *words: bytes, db: Db) -> list[Any]:
    """List members with their scores."""
    check_cursor(cursor)
    with db.read() as t:
        header = t.typed(key, ZSET)
        scores = dict(t.ranked(header))
    names = scanned(words, list(scores) if header else None)
    return ["0", [text for name in names for text in (name, float_text(scores[name]))]]
