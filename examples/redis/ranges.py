"""Commands for ranges of sorted sets, and for combinations of several sorted sets."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import takewhile
from typing import Any

from application import app
from attrs import define
from db import Db
from layout import SET, ZSET, Header, parse_int
from sorted_sets import Pairs, parse_score, shown
from transaction import Txn

from linepool import ClientError, Resp, Verb

_SYNTAX = "syntax error"
_NOT_INTEGER = "value is not an integer or out of range"
Test = Callable[[tuple[bytes, float]], bool]


def score_range(low: bytes, high: bytes) -> tuple[Test, Test]:
    """Return the tests whether a score is above and below bounds; ``(5`` excludes 5.

    Raises:
        ClientError: A bound is not a number.
    """
    try:
        first, last = (parse_score(word.removeprefix(b"(")) for word in (low, high))
    except ClientError:
        raise ClientError("min or max is not a float") from None

    def above(pair: tuple[bytes, float]) -> bool:
        return pair[1] > first if low.startswith(b"(") else pair[1] >= first

    def below(pair: tuple[bytes, float]) -> bool:
        return pair[1] < last if high.startswith(b"(") else pair[1] <= last

    return above, below


def member_range(low: bytes, high: bytes) -> tuple[Test, Test]:
    """Return the tests whether a member is above and below bounds: ``[a``, ``(a``, ``-`` or ``+``.

    Raises:
        ClientError: A bound is none of these.
    """
    for word in (low, high):
        if word not in (b"-", b"+") and word[:1] not in (b"[", b"("):
            raise ClientError("min or max not valid string range item")

    def above(pair: tuple[bytes, float]) -> bool:
        if low in (b"-", b"+"):
            return low == b"-"
        return pair[0] > low[1:] if low.startswith(b"(") else pair[0] >= low[1:]

    def below(pair: tuple[bytes, float]) -> bool:
        if high in (b"-", b"+"):
            return high == b"+"
        return pair[0] < high[1:] if high.startswith(b"(") else pair[0] <= high[1:]

    return above, below


def run_within(pairs: Pairs, above: Test, below: Test) -> Pairs:
    """Return the first members in a row that pass two tests; if scores differ, others may follow."""
    if not pairs or not (below(pairs[0]) and above(pairs[-1])):
        return []
    start = next(index for index, pair in enumerate(pairs) if above(pair))
    return list(takewhile(below, pairs[start:]))


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
        tests = (score_range if self.by == "SCORE" else member_range)(low, high)
        pairs = t.ranked(t.typed(key, ZSET))
        if self.rev:
            pairs.reverse()
            tests = tests[1], tests[0]
        pairs = run_within(pairs, *tests)
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
        return replaced(t, target, wanted.of(t, key, start, stop), "zrangestore")


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
            t.notify(verb.lower(), key)
            t.save(header)
        return len(pairs)


def replaced(t: Txn, key: bytes, pairs: Pairs, event: str) -> int:
    """Replace a key's value with these members, which is an event; return their number."""
    header = t.emptied(key, ZSET)
    for member, score in pairs:
        t.set_score(header, member, score)
    t.save(header)
    if pairs:
        t.notify(event, key)
        t.came(header, len(pairs))
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


def sources_of(t: Txn, verb: str, words: tuple[bytes, ...]) -> list[dict[bytes, float]]:
    """Return the members of the sets whose number and keys the words begin with; raises ClientError."""
    count = integer(words[0])
    if count < 1:
        raise ClientError(f"at least 1 input key is needed for '{verb.lower()}' command")
    if count >= len(words):
        raise ClientError(_SYNTAX)
    return [members_of(t, key) for key in words[1 : count + 1]]


def combined(t: Txn, verb: str, words: tuple[bytes, ...], *, may_show: bool) -> tuple[Pairs, bool]:
    """Return the members of a union, intersection or difference, and whether to show their scores.

    Args:
        t: The transaction.
        verb: The command.
        words: The number of keys, and all words after it.
        may_show: The command has the option WITHSCORES.
    """
    sources = sources_of(t, verb, words)
    count = len(sources)
    options = list(words[count + 1 :])
    weights = [1.0] * count
    aggregate = _AGGREGATES[b"SUM"]
    scores = False
    operation = verb.removesuffix("STORE")
    while options:
        option = options.pop(0).upper()
        if option == b"WEIGHTS" and len(options) >= count and operation != "ZDIFF":
            try:
                weights = [parse_score(word) for word in options[:count]]
            except ClientError:
                raise ClientError("weight value is not a float") from None
            del options[:count]
        elif option == b"AGGREGATE" and options and operation != "ZDIFF":
            name = options.pop(0).upper()
            if name not in _AGGREGATES:
                raise ClientError(_SYNTAX)
            aggregate = _AGGREGATES[name]
        elif option == b"WITHSCORES" and may_show:
            scores = True
        else:
            raise ClientError(_SYNTAX)
    weighted = [
        {member: score * weight for member, score in members.items()}
        for members, weight in zip(sources, weights, strict=True)
    ]
    return sorted_pairs(_joined(operation, weighted, aggregate)), scores


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
        return replaced(t, target, pairs, verb.lower())


@app.handler(flags="readonly")
def zintercard(numkeys: bytes, key: bytes, *more: bytes, db: Db) -> int:
    """Count the common members of sorted sets: ZINTERCARD numkeys key ... [LIMIT limit]."""
    with db.read() as t:
        sources = sources_of(t, "ZINTERCARD", (numkeys, key, *more))
    limit: int | None = 0
    if options := (key, *more)[len(sources) :]:
        if len(options) != 2 or options[0].upper() != b"LIMIT":
            raise ClientError(_SYNTAX)
        limit = parse_int(options[1])
        if limit is None or limit < 0:
            raise ClientError("LIMIT can't be negative")
    size = len(set(sources[0]).intersection(*sources[1:]))
    return min(size, limit) if limit else size
