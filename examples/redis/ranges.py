"""Commands for ranges of sorted sets, and for combinations of several sorted sets."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from application import app
from attrs import define
from db import Db, Txn
from layout import SET, ZSET, Header
from sorted_sets import Pairs, parse_score, shown

from linepool import ClientError, Resp, Verb

_SYNTAX = "syntax error"
_NOT_INTEGER = "value is not an integer or out of range"


def score_range(low: bytes, high: bytes) -> Callable[[bytes, float], bool]:
    """Return the test for scores within bounds; ``(5`` excludes 5.

    Raises:
        ClientError: A bound is not a number.
    """
    try:
        first, last = (parse_score(word.removeprefix(b"(")) for word in (low, high))
    except ClientError:
        raise ClientError("min or max is not a float") from None
    above = low.startswith(b"(")
    below = high.startswith(b"(")

    def fits(_member: bytes, score: float) -> bool:
        return (score > first if above else score >= first) and (
            score < last if below else score <= last
        )

    return fits


def member_range(low: bytes, high: bytes) -> Callable[[bytes, float], bool]:
    """Return the test for members within bounds: ``[a``, ``(a``, ``-`` or ``+``.

    Raises:
        ClientError: A bound is none of these.
    """
    for word in (low, high):
        if word not in (b"-", b"+") and word[:1] not in (b"[", b"("):
            raise ClientError("min or max not valid string range item")

    def above(member: bytes) -> bool:
        if low in (b"-", b"+"):
            return low == b"-"
        return member > low[1:] if low.startswith(b"(") else member >= low[1:]

    def below(member: bytes) -> bool:
        if high in (b"-", b"+"):
            return high == b"+"
        return member < high[1:] if high.startswith(b"(") else member <= high[1:]

    return lambda member, _score: above(member) and below(member)


def integer(word: bytes) -> int:
    """Return an integer; unlike ``parse_int``, ``007`` is one.

    Raises:
        ClientError: The word is not an integer.
    """
    digits = word.removeprefix(b"-")
    if not digits.isdigit() or len(digits) > 19:
        raise ClientError(_NOT_INTEGER)
    return int(word)


@define
class Range:
    """The range that a ZRANGE selects: its options."""

    by: str = "RANK"
    rev: bool = False
    scores: bool = False
    limit: tuple[int, int] | None = None

    def parse(self, words: tuple[bytes, ...]) -> None:
        """Read the options.

        Raises:
            ClientError: An option is unknown.
        """
        at = 0
        while at < len(words):
            option = words[at].upper()
            if option in (b"BYSCORE", b"BYLEX"):
                self.by = option.decode()[2:]
            elif option == b"REV":
                self.rev = True
            elif option == b"WITHSCORES":
                self.scores = True
            elif option == b"LIMIT" and at + 2 < len(words):
                self.limit = integer(words[at + 1]), integer(words[at + 2])
                at += 2
            else:
                raise ClientError(_SYNTAX)
            at += 1

    def check(self) -> None:
        """Raise ClientError for options that exclude each other."""
        if self.limit is not None and self.by == "RANK":
            raise ClientError(
                "syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX"
            )
        if self.scores and self.by == "LEX":
            raise ClientError("syntax error, WITHSCORES not supported in combination with BYLEX")

    def of(self, t: Txn, key: bytes, start: bytes, stop: bytes) -> Pairs:
        """Return the members within the range."""
        if self.by == "RANK":
            first, last = integer(start), integer(stop)
            pairs = t.ranked(t.typed(key, ZSET))
            if self.rev:
                pairs.reverse()
            first = max(0, first + len(pairs) if first < 0 else first)
            last = last + len(pairs) if last < 0 else last
            return pairs[first : max(0, last + 1)]
        low, high = (stop, start) if self.rev else (start, stop)
        fits = (score_range if self.by == "SCORE" else member_range)(low, high)
        pairs = [pair for pair in t.ranked(t.typed(key, ZSET)) if fits(*pair)]
        if self.rev:
            pairs.reverse()
        if self.limit is None:
            return pairs
        offset, count = self.limit
        if offset < 0:
            return []
        return pairs[offset:] if count < 0 else pairs[offset : offset + count]


@app.handler(flags="readonly")
def zrange(key: bytes, start: bytes, stop: bytes, *words: bytes, db: Db, resp: Resp) -> list[Any]:
    """Return members by rank, score (BYSCORE) or name (BYLEX)."""
    wanted = Range()
    wanted.parse(words)
    wanted.check()
    with db.read() as t:
        return shown(wanted.of(t, key, start, stop), resp, scores=wanted.scores)


@app.handler(
    "ZREVRANGE",
    "ZRANGEBYSCORE",
    "ZREVRANGEBYSCORE",
    "ZRANGEBYLEX",
    "ZREVRANGEBYLEX",
    flags="readonly",
)
def old_zrange(
    key: bytes, start: bytes, stop: bytes, *words: bytes, db: Db, resp: Resp, verb: Verb
) -> list[Any]:
    """Return members, with the arguments of the older commands."""
    wanted = Range()
    wanted.parse(words)
    if wanted.by != "RANK" or wanted.rev:
        raise ClientError(_SYNTAX)
    wanted.rev = "REV" in verb
    wanted.by = "SCORE" if "SCORE" in verb else "LEX" if "LEX" in verb else "RANK"
    if (wanted.by == "RANK" and wanted.limit) or (wanted.by == "LEX" and wanted.scores):
        raise ClientError(_SYNTAX)
    with db.read() as t:
        return shown(wanted.of(t, key, start, stop), resp, scores=wanted.scores)


@app.handler(flags="write denyoom", keys=(1, 2, 1))
def zrangestore(target: bytes, key: bytes, start: bytes, stop: bytes, *words: bytes, db: Db) -> int:
    """Store the result of ZRANGE; return the number of members."""
    wanted = Range()
    wanted.parse(words)
    wanted.check()
    if wanted.scores:
        raise ClientError(_SYNTAX)
    with db.write() as t:
        return replaced(t, target, wanted.of(t, key, start, stop))


@app.handler("ZCOUNT", "ZLEXCOUNT", flags="readonly fast")
def zcount(key: bytes, low: bytes, high: bytes, db: Db, verb: Verb) -> int:
    """Count the members within a range of scores, or of names."""
    with db.read() as t:
        by = "SCORE" if verb == "ZCOUNT" else "LEX"
        return len(Range(by).of(t, key, low, high))


@app.handler("ZREMRANGEBYRANK", "ZREMRANGEBYSCORE", "ZREMRANGEBYLEX", flags="write")
def zremrange(key: bytes, start: bytes, stop: bytes, db: Db, verb: Verb) -> int:
    """Drop the members within a range; return how many there were."""
    with db.write() as t:
        pairs = Range(verb.removeprefix("ZREMRANGEBY")).of(t, key, start, stop)
        header = t.typed(key, ZSET)
        if header and pairs:
            for member, _ in pairs:
                t.pop_score(header, member)
            t.save(header)
        return len(pairs)


def replaced(t: Txn, key: bytes, pairs: Pairs) -> int:
    """Replace a key's value with these members; return their number."""
    if old := t.find(key):
        t.remove(old)
    if pairs:
        header = t.made(key, ZSET)
        for member, score in pairs:
            t.set_score(header, member, score)
        t.save(header)
    return len(pairs)


def members_of(t: Txn, key: bytes) -> dict[bytes, float]:
    """Return the members of a sorted set; those of a plain set have the score 1."""
    header: Header | None = t.find(key)
    if header is not None and header.kind == SET:
        return dict.fromkeys(t.members(header), 1.0)
    return dict(t.ranked(t.typed(key, ZSET)))


_AGGREGATES: dict[bytes, Callable[[float, float], float]] = {
    b"SUM": lambda a, b: 0.0 if math.isnan(a + b) else a + b,
    b"MIN": min,
    b"MAX": max,
}


def combined(t: Txn, verb: str, words: tuple[bytes, ...], *, may_show: bool) -> tuple[Pairs, bool]:
    """Return the members of a union, intersection or difference, and whether to show their scores.

    Args:
        t: The transaction.
        verb: The command.
        words: The number of keys, and all words after it.
        may_show: The command has the option WITHSCORES.
    """
    count = integer(words[0])
    if count < 1:
        raise ClientError(f"at least 1 input key is needed for '{verb.lower()}' command")
    if count >= len(words):
        raise ClientError(_SYNTAX)
    keys, options = words[1 : count + 1], words[count + 1 :]
    weights = [1.0] * count
    aggregate = _AGGREGATES[b"SUM"]
    scores = False
    at = 0
    operation = verb.removesuffix("STORE")
    while at < len(options):
        option = options[at].upper()
        if option == b"WEIGHTS" and len(options) > at + count and operation != "ZDIFF":
            try:
                weights = [parse_score(word) for word in options[at + 1 : at + 1 + count]]
            except ClientError:
                raise ClientError("weight value is not a float") from None
            at += count
        elif option == b"AGGREGATE" and len(options) > at + 1 and operation != "ZDIFF":
            name = options[at + 1].upper()
            if name not in _AGGREGATES:
                raise ClientError(_SYNTAX)
            aggregate = _AGGREGATES[name]
            at += 1
        elif option == b"WITHSCORES" and may_show:
            scores = True
        else:
            raise ClientError(_SYNTAX)
        at += 1
    sources = [
        {member: score * weight for member, score in members_of(t, key).items()}
        for key, weight in zip(keys, weights, strict=True)
    ]
    return sorted_pairs(_joined(operation, sources, aggregate)), scores


def _joined(
    operation: str,
    sources: list[dict[bytes, float]],
    aggregate: Callable[[float, float], float],
) -> dict[bytes, float]:
    found = dict(sources[0])
    for other in sources[1:]:
        if operation == "ZDIFF":
            found = {member: score for member, score in found.items() if member not in other}
        elif operation == "ZINTER":
            found = {
                member: aggregate(score, other[member])
                for member, score in found.items()
                if member in other
            }
        else:
            for member, score in other.items():
                found[member] = aggregate(found[member], score) if member in found else score
    return {member: 0.0 if math.isnan(score) else score for member, score in found.items()}


def sorted_pairs(members: dict[bytes, float]) -> Pairs:
    return sorted(members.items(), key=lambda pair: (pair[1], pair[0]))


@app.handler("ZUNION", "ZINTER", "ZDIFF", flags="readonly")
def combine(numkeys: bytes, key: bytes, *words: bytes, db: Db, verb: Verb, resp: Resp) -> list[Any]:
    """Return the union, intersection or difference of sorted sets."""
    with db.read() as t:
        pairs, scores = combined(t, verb, (numkeys, key, *words), may_show=True)
    return shown(pairs, resp, scores=scores)


@app.handler("ZUNIONSTORE", "ZINTERSTORE", "ZDIFFSTORE", flags="write denyoom")
def combine_and_store(
    target: bytes, numkeys: bytes, key: bytes, *words: bytes, db: Db, verb: Verb
) -> int:
    """Store the result of ZUNION, ZINTER or ZDIFF; return the number of members."""
    with db.write() as t:
        pairs, _ = combined(t, verb, (numkeys, key, *words), may_show=False)
        return replaced(t, target, pairs)


@app.handler(flags="readonly")
def zintercard(numkeys: bytes, key: bytes, *more: bytes, db: Db) -> int:
    """Count the common members of sorted sets: ZINTERCARD numkeys key ... [LIMIT limit]."""
    words = (key, *more)
    if not numkeys.isdigit() or int(numkeys) == 0:
        raise ClientError("at least 1 input key is needed for 'zintercard' command")
    count = int(numkeys)
    if count > len(words):
        raise ClientError(_SYNTAX)
    limit = 0
    if options := words[count:]:
        if len(options) != 2 or options[0].upper() != b"LIMIT":
            raise ClientError(_SYNTAX)
        if not options[1].isdigit():
            raise ClientError("LIMIT can't be negative")
        limit = int(options[1])
    with db.read() as t:
        sources = [members_of(t, one).keys() for one in words[:count]]
    size = len(set(sources[0]).intersection(*sources[1:]))
    return min(size, limit) if limit else size
