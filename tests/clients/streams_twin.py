"""Random commands for streams, for a real Redis and the example beside it: their replies must be the same."""

from __future__ import annotations

import random
from collections.abc import Iterator

# K key, I ID, J and P IDs of new entries, B bound, G group, C consumer, N number, E entries read,
# T idle time; the rest as it is.
PLAIN = """
XADD K J f v|XADD K J f v|XADD K J f v|XADD K J f v|XADD K P f v|XADD K P f v|XADD K P f v|XADD K P f v
XADD K P f v|XADD K P f v|XADD K P f v|XADD K P f v|XADD K P f v|XADD K P f v|XADD K J f v g w|XADD K J
XADD K J f|XADD K NOMKSTREAM J f v|XADD K MAXLEN N J f v|XADD K MAXLEN = N J f v|XADD K MAXLEN ~ N J f v
XADD K MINID I J f v|XADD K MINID ~ I LIMIT N J f v|XADD K LIMIT N J f v|XADD K MAXLEN 1 MINID I J f v
XADD K MAXLEN 3 LIMIT N J f v|XADD K MAXLEN|XADD K J MAXLEN 3|XLEN K|XRANGE K B B|XRANGE K B B COUNT N
XREVRANGE K B B|XREVRANGE K B B COUNT N|XRANGE K - + COUNT|XDEL K I|XDEL K I I I|XTRIM K MAXLEN N
XTRIM K MAXLEN ~ N|XTRIM K MINID I|XTRIM K MINID ~ I LIMIT N|XTRIM K I I|XTRIM K LIMIT N|XSETID K 9-9
XSETID K I MAXDELETEDID 9-9|XSETID K 9-9 ENTRIESADDED N|XSETID K 9-9 ZZ|XREAD STREAMS K I
XREAD COUNT N STREAMS a b I I|XREAD STREAMS K $|XREAD BLOCK x STREAMS K I|XREAD COUNT N|XREAD STREAMS K >
XREAD GROUP G C STREAMS K I|XREAD NOACK STREAMS K I|XREAD BLOCK 1 STREAMS K I|XREAD BLOCK -1 STREAMS K I
XGROUP CREATE K G I|XGROUP CREATE K G $ MKSTREAM|XGROUP CREATE K G 0 MKSTREAM
XGROUP CREATE K G I ENTRIESREAD E|XGROUP CREATE K G|XGROUP CREATE K G 0 ZZ|XGROUP SETID K G I
XGROUP SETID K G $|XGROUP SETID K G I ENTRIESREAD E|XGROUP SETID K G B|XGROUP DESTROY K G
XGROUP DESTROY K G G|XGROUP CREATECONSUMER K G C|XGROUP DELCONSUMER K G C|XGROUP ZZ K G
XGROUP CREATECONSUMER K G|XREADGROUP GROUP G C STREAMS K >|XREADGROUP GROUP G C COUNT N STREAMS K >
XREADGROUP GROUP G C NOACK STREAMS K >|XREADGROUP GROUP G C STREAMS a b > >
XREADGROUP GROUP G C STREAMS K I|XREADGROUP GROUP G C COUNT N STREAMS K 0
XREADGROUP GROUP G C STREAMS K $|XREADGROUP STREAMS K >|XREADGROUP GROUP G C BLOCK 1 STREAMS K >
XREADGROUP GROUP G C COUNT 2 STREAMS K >|XREADGROUP GROUP G C COUNT 1 STREAMS K >|XACK K G I
XACK K G I I I|XACK K G|XPENDING K G|XPENDING K G B B N|XPENDING K G B B N C|XPENDING K G IDLE T B B N
XPENDING K G IDLE T B B N C|XPENDING K G B|XPENDING K G IDLE T B B|XPENDING K G - +|XPENDING K G - + 10
XCLAIM K G C T I|XCLAIM K G C 0 I I I|XCLAIM K G C 0 I JUSTID|XCLAIM K G C 0 I IDLE T
XCLAIM K G C 0 I TIME 1|XCLAIM K G C 0 I RETRYCOUNT N|XCLAIM K G C 0 I I FORCE
XCLAIM K G C 0 I FORCE JUSTID LASTID I|XCLAIM K G C 0 I ZZ|XCLAIM K G C 0 I IDLE x|XCLAIM K G C x I
XCLAIM K G C T I IDLE 3000000 FORCE|XAUTOCLAIM K G C T 0|XAUTOCLAIM K G C 0 B COUNT N
XAUTOCLAIM K G C 0 B JUSTID|XAUTOCLAIM K G C 0 - COUNT 1|XAUTOCLAIM K G C x 0|XAUTOCLAIM K G C 0 0 ZZ
XINFO STREAM K|XINFO GROUPS K|XINFO CONSUMERS K G|XINFO STREAM K FULL|XINFO STREAM K FULL COUNT N
XINFO STREAM K ZZ|XINFO STREAM|XINFO ZZ|XINFO GROUPS K|XINFO STREAM K FULL|DEL K|TYPE K|COPY K K
COPY K K REPLACE|RENAME K K|SET c x|EXISTS K|OBJECT ENCODING K|EXPIRE K 100|PERSIST K|GET K|DBSIZE
"""
GOOD = ["1-1", "1-2", "1-3", "2-1", "2-2", "3", "3-7", "3-8", "5-0", "5-1", "6-6"]
IDS = [*GOOD, *GOOD, *GOOD, "0", "0-0", "x", "1-", "+2-01"]
CHOICES = {
    "K": [*"aaaaabbbc"],
    "I": IDS,
    "P": ["5-*", "2-*"],
    "J": [*["1-*", "2-*", "3-*", "5-*"] * 10, *IDS],
    "B": ["-", "+", "-", "+", "(1-1", "(2", "(0-0", "(x", "(", *IDS],
    "G": [*"gggh"],
    "C": [*"xxy"],
    "N": ["0", "1", "2", "3", "5", "10", "-1", "-7", "x", "9223372036854775807"],
    "E": ["0", "1", "2", "5", "100", "-1", "-7", "x"],
    "T": ["0", "1000000", "2000000", "-1"],
}  # fmt: skip
SHAPES = [shape.split() for line in PLAIN.split("\n") for shape in line.split("|") if shape]
_LATER = (b"inactive", b"active-time")  # facts that only later versions of Redis know
_CLOCKS = (b"idle", b"seen-time", b"radix-tree-keys", b"radix-tree-nodes")


def commands(seed: int, count: int) -> Iterator[list[bytes]]:
    """Yield random commands; the same for the same seed. Now and then, all keys are dropped."""
    chance = random.Random(seed)
    for number in range(count):
        if number % 100 == 99:
            yield [b"FLUSHALL"]
        if number % 100 == 0:
            for pair in (b"a g", b"a h", b"b g"):
                yield [b"XGROUP", b"CREATE", *pair.split(), b"0", b"MKSTREAM"]
        words = [chance.choice(CHOICES.get(word, [word])) for word in chance.choice(SHAPES)]
        for key in _keys_taken(words):
            group, consumer = words[2:4]
            yield [one.encode() for one in ("XGROUP", "CREATECONSUMER", key, group, consumer)]
        yield [word.encode() for word in words]


def _keys_taken(words: list[str]) -> list[str]:
    """Return the keys of which a command makes a consumer: Redis 7.0 does that later than 7.2."""
    if words[0] in ("XCLAIM", "XAUTOCLAIM"):
        return words[1:2]
    return ["a", "b", "c"] if words[:2] == ["XREADGROUP", "GROUP"] else []


def comparable(words: list[bytes], reply):
    """Return a reply without what depends on the clock, on memory, or on the version of Redis."""
    kind, value = reply
    if not isinstance(value, list) or words[0] not in (b"XINFO", b"XPENDING"):
        return reply
    if words[0] == b"XPENDING":
        rows = [one[1] for one in value if len(words) > 3]
        return (kind, [[row[0], row[1], row[3]] for row in rows]) if rows else reply
    found = []
    items = iter(value)
    for item in items:
        if item[1] in _LATER or item[1] in _CLOCKS:
            next(items)
        elif item[0] == b":" and len(item[1]) > 11:
            found.append("a time")
        else:
            found.append(comparable(words, item))
    return kind, found
