"""Random commands for a real Redis and the example beside it: their replies must be the same."""

from __future__ import annotations

import contextlib
import random
import socket
from collections.abc import Iterator

from tests.clients import data_shapes
from tests.servers import TIMEOUT

KEYS = [b"a", b"b", b"c", b"d"]
FIELDS = [b"f", b"g", b"h", b"", b"long" * 200]
TEXTS = [b"", b"x", b"1", b"-7", b"3.5", b"abc", b"9223372036854775807", b"010", b"\r\n\0", b" 5"]
NUMBERS = [
    b"0",
    b"1",
    b"-1",
    b"2",
    b"-3",
    b"10",
    b"x",
    b"9223372036854775807",
    b"-9223372036854775808",
]
SCORES = [b"0", b"1", b"1.5", b"-2", b"inf", b"-inf", b"3e2", b"x", b"nan"]
BOUNDS = [b"-inf", b"+inf", b"(1", b"1", b"2", b"(x", b"-2", b"300"]
NAMES = [b"-", b"+", b"[f", b"(f", b"[g", b"[h", b"f"]
INDEXES = [b"0", b"1", b"-1", b"2", b"-2", b"5", b"-9", b"x"]
TIMES = [b"100000", b"0", b"-1", b"x", b"9223372036854775807", b"1000000"]
COUNTS = [b"1", b"2", b"0", b"10"]
WIDTHS = [b"u8", b"i8", b"u1", b"i64", b"u63", b"i5", b"u13", b"u0", b"x8", b"i"]
OFFSETS = [b"0", b"1", b"7", b"#0", b"#1", b"#3", b"100", b"x", b"-1", b"#-1", b"#"]
ELEMENTS = [b"1", b"2", b"10", b"-3", b"1.5", b"b", b"inf", b""]

# K key, F field, T text, N number, S score, B bound, L name, I index, M time, C count, D width,
# O offset, E element; the rest as it is.
# A star: the words behind it, up to and with the next star, any number of times from 1.
PLAIN = """
GET K|SET K T|SET K T EX M|SET K T PX M NX|SET K T XX GET|SET K T KEEPTTL|SET K T GET|SET K T NX XX|SET K T EX
SETNX K T|SETEX K M T|PSETEX K M T|GETSET K T|GETDEL K|GETEX K|GETEX K PERSIST|GETEX K EX M|MGET * K *
MSET * K T *|MSETNX * K T *|MSET K|APPEND K T|STRLEN K|GETRANGE K I I|SETRANGE K I T|INCR K|DECR K|INCRBY K N
DECRBY K N|INCRBYFLOAT K S|INCRBYFLOAT K T|SETBIT K C 1|GETBIT K C|BITCOUNT K|BITCOUNT K C C
DEL * K *|UNLINK K|EXISTS * K *|TYPE K|EXPIRE K M|PEXPIRE K M|EXPIRE K M NX|EXPIRE K M XX|EXPIRE K M GT
EXPIRE K M LT|EXPIRE K M NX XX|EXPIRE K M GT LT|EXPIRE K M ZZ|PERSIST K|TTL K|RENAME K K|RENAMENX K K
TOUCH * K *|COPY K K|COPY K K REPLACE|KEYS *|KEYS [ab]|DBSIZE
HSET K * F T *|HSETNX K F T|HGET K F|HMSET K * F T *|HMGET K * F *|HGETALL K|HDEL K * F *|HEXISTS K F|HLEN K
HKEYS K|HVALS K|HINCRBY K F N|HINCRBYFLOAT K F S|HSTRLEN K F|HSET K F|HSCAN K 0|HSCAN K 0 MATCH f
LPUSH K * T *|RPUSH K * T *|LPUSHX K T|RPUSHX K T|LPOP K|RPOP K|LPOP K C|RPOP K I|LLEN K|LRANGE K I I
LINDEX K C|LSET K I T|LREM K I T|LTRIM K I I|LINSERT K BEFORE T T|LINSERT K AFTER T T
LINSERT K ZZ T T|RPOPLPUSH K K|LMOVE K K LEFT RIGHT|LMOVE K K RIGHT LEFT|LPOS K T|LPOS K T RANK I
LPOS K T COUNT C|LPOS K T MAXLEN C
SADD K * F *|SREM K * F *|SISMEMBER K F|SMISMEMBER K * F *|SMEMBERS K|SCARD K|SINTER * K *
SUNION * K *|SDIFF * K *|SINTERSTORE K * K *|SUNIONSTORE K * K *|SDIFFSTORE K * K *|SINTERCARD 2 K K
SINTERCARD 2 K K LIMIT C|SINTERCARD I K|SMOVE K K F|SSCAN K 0
ZADD K * S F *|ZADD K NX S F|ZADD K XX CH S F|ZADD K GT S F|ZADD K LT CH S F|ZADD K INCR S F|ZADD K NX XX S F
ZADD K GT LT S F|ZADD K S|ZADD K XX INCR S F|ZINCRBY K S F|ZREM K * F *|ZSCORE K F|ZMSCORE K * F *|ZCARD K
ZCOUNT K B B|ZRANK K F|ZREVRANK K F|ZRANGE K I I|ZRANGE K I I WITHSCORES|ZRANGE K I I REV|ZRANGE K B B BYSCORE
ZRANGE K B B BYSCORE REV LIMIT I I|ZRANGE K L L BYLEX|ZRANGE K L L BYLEX REV|ZRANGE K I I LIMIT 0 1
ZRANGEBYSCORE K B B|ZRANGEBYSCORE K B B WITHSCORES LIMIT I I|ZREVRANGE K I I|ZREVRANGE K I I WITHSCORES
ZREVRANGEBYSCORE K B B|ZRANGEBYLEX K L L|ZREVRANGEBYLEX K L L LIMIT I I|ZLEXCOUNT K L L|ZREMRANGEBYRANK K I I
ZREMRANGEBYSCORE K B B|ZREMRANGEBYLEX K L L|ZPOPMIN K|ZPOPMAX K|ZPOPMIN K C|ZUNIONSTORE K 2 K K
ZUNIONSTORE K 2 K K WEIGHTS 2 C|ZINTERSTORE K 2 K K AGGREGATE MAX|ZUNION 2 K K WITHSCORES|ZINTER 2 K K
ZDIFF 2 K K WITHSCORES|ZUNIONSTORE K I K|ZSCAN K 0
SELECT C|SELECT I|SELECT 0|MOVE K C|MOVE K I|MOVE K 2|SWAPDB C C|SWAPDB I 0|COPY K K DB C
COPY K K DB I REPLACE|COPY K K DB 1 REPLACE|FLUSHDB|FLUSHDB ZZ|WATCH K|RESET
MULTI|EXEC|DISCARD|PING|ECHO T|GET|NOSUCH K T|SET K T ZZ
"""
CHOICES = {
    "K": KEYS, "F": FIELDS, "T": TEXTS, "N": NUMBERS, "S": SCORES, "B": BOUNDS, "L": NAMES,
    "I": INDEXES, "M": TIMES, "C": COUNTS, "D": WIDTHS, "O": OFFSETS, "E": ELEMENTS,
}  # fmt: skip


def shapes_in(text: str) -> list[list[str]]:
    """Return the shapes of commands in a text."""
    return [shape.split() for line in text.split("\n") for shape in line.split("|") if shape]


SHAPES, MORE_SHAPES = shapes_in(PLAIN), shapes_in(data_shapes.SHAPES)
UNORDERED = {b"SMEMBERS", b"SINTER", b"SUNION", b"SDIFF", b"HGETALL", b"HKEYS", b"HVALS", b"KEYS"}


def commands(seed: int, count: int, shapes: list[list[str]] = SHAPES) -> Iterator[list[bytes]]:
    """Yield random commands; the same for the same seed. Now and then, all keys are dropped."""
    chance = random.Random(seed)
    for number in range(count):
        if number % 200 == 199:
            yield [b"FLUSHALL"]
        shape = chance.choice(shapes)
        if shape[0] != "KEYS" and "*" in shape:
            first, last = shape.index("*"), len(shape) - 1 - shape[::-1].index("*")
            repeated = shape[first + 1 : last] * chance.randint(1, 3)
            shape = shape[:first] + repeated + shape[last + 1 :]
        yield [chance.choice(CHOICES[word]) if word in CHOICES else word.encode() for word in shape]


def packed(words: list[bytes]) -> bytes:
    """Return a command as it is sent."""
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(w), w) for w in words)


class Reader:
    """Reads replies, in RESP 2 and 3, as nested lists of what was sent."""

    def __init__(self, stream) -> None:
        self._stream = stream

    def reply(self):
        line = self._stream.readline()
        assert line.endswith(b"\r\n"), line
        kind, rest = line[:1], line[1:-2]
        if kind in (b"$", b"=") and rest != b"-1":
            return (kind, self._stream.read(int(rest) + 2)[:-2])
        if kind in (b"*", b"~", b">", b"%") and rest != b"-1":
            count = int(rest) * (2 if kind == b"%" else 1)
            return (kind, [self.reply() for _ in range(count)])
        return (kind, rest)


def comparable(words: list[bytes], reply):
    """Return a reply so that two of them can be compared whatever the order of a set is, and the clock."""
    kind, value = reply
    if words[0] == b"EXPIRE" and words[-1] in (b"GT", b"LT") and kind == b":":
        return kind  # whether the same time from now is later depends on the millisecond
    if words[0] in (b"EXPIRETIME", b"PEXPIRETIME"):
        return kind
    if words[0] == b"TTL" and kind == b":" and int(value) > 0:
        return kind, (int(value) + 50) // 1000  # the seconds that have passed are no difference
    if isinstance(value, list) and words[0].endswith(b"SCAN"):
        return kind, value[0], sorted(map(repr, value[1][1]))
    if isinstance(value, list) and words[0] in UNORDERED:
        return kind, sorted(map(repr, value))
    return reply


class Twins:
    """Two connections, to a real Redis and to the example, which must reply alike."""

    def __init__(self, ports: tuple[int, int], stack: contextlib.ExitStack, version: int) -> None:
        self._socks = [
            stack.enter_context(socket.create_connection(("127.0.0.1", port), TIMEOUT))
            for port in ports
        ]
        self._readers = [Reader(stack.enter_context(s.makefile("rb"))) for s in self._socks]
        start = packed([b"HELLO", b"%d" % version]) + packed([b"FLUSHALL"])
        for sock, reader in zip(self._socks, self._readers, strict=True):
            sock.sendall(start)
            reader.reply()
            assert reader.reply() == (b"+", b"OK")

    def ask(self, batch: list[list[bytes]]) -> None:
        """Send commands together."""
        for sock in self._socks:
            sock.sendall(b"".join(map(packed, batch)))
        for words in batch:
            theirs, ours = (comparable(words, reader.reply()) for reader in self._readers)
            assert ours == theirs, words


def split(shape: str) -> list[str]:
    """Return the words of a command; those with blanks are in quotes."""
    words = []
    for number, part in enumerate(shape.split('"')):
        words += [part] if number % 2 else part.split()
    return words
