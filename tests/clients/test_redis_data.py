"""The commands on data of the Redis example: the same replies as a real Redis."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable

import pytest
import redis

from tests.clients.harness import redis_server
from tests.clients.redis_twin import MORE_SHAPES, Twins, commands, split
from tests.servers import EXAMPLES, run_server

REDIS = EXAMPLES / "redis" / "redis_server.py"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with run_server(REDIS, tmp_path_factory.mktemp("redis"), "--workers", "2") as running:
        yield running


@pytest.fixture(scope="module")
def real_redis(tmp_path_factory):
    with redis_server(tmp_path_factory.mktemp("real")) as number:
        yield number


@pytest.fixture(params=[2, 3])
def twins(request, server, real_redis):
    with contextlib.ExitStack() as stack:
        yield Twins((real_redis, server.port), stack, request.param)


def test_replies_to_further_random_commands_equal_those_of_redis(twins):
    sent = commands(20, 3000, MORE_SHAPES)
    while batch := list(itertools.islice(sent, 20)):
        twins.ask(batch)


DIALOGUES = {
    "object": """
        SET n 12|SET n0 10000|SET s text
        SET l xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx
        RPUSH r 1|SADD i 1 2|SADD t a|HSET h f v
        HSET g f xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx
        ZADD z 1 a|ZADD y 1 xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx
        XADD x 1-1 f v
        OBJECT ENCODING n|OBJECT ENCODING s|OBJECT ENCODING l|OBJECT ENCODING r|OBJECT ENCODING i
        OBJECT ENCODING t
        OBJECT ENCODING h|OBJECT ENCODING g|OBJECT ENCODING z|OBJECT ENCODING y|OBJECT ENCODING x
        OBJECT ENCODING none
        OBJECT REFCOUNT n|OBJECT REFCOUNT n0|OBJECT REFCOUNT r|OBJECT FREQ s
        OBJECT FREQ none
        APPEND n 3|SETRANGE s 1 x|SETBIT b 1 1|OBJECT ENCODING n|OBJECT ENCODING s|OBJECT ENCODING b|SET n 1
        OBJECT ENCODING n|OBJECT ZZ s|OBJECT ENCODING|OBJECT HELP s
    """,
    "sort": """
        RPUSH l 3 1 2|SORT l BY nosort|SORT l BY nosort DESC|SORT l BY nosort DESC LIMIT 1 1
        SORT l BY nosort STORE m
        ZADD z 1 c 2 a 3 b|SORT z BY nosort|SORT z BY nosort DESC|SORT z BY nosort DESC LIMIT 1 2
        SORT z ALPHA
        SADD s b a c|SORT s BY nosort STORE m|LRANGE m 0 -1|MSET w_1 b w_2 a w_3 c|SORT l BY w_* ALPHA
        SORT l BY w_* ALPHA DESC GET # GET w_*|SORT l BY w_*|HSET h_1 f 5|HSET h_2 f -1
        SORT l BY h_*->f GET h_*->f
        SORT l GET w_*->f GET w_*-> GET h_*|SORT l BY nosort GET x|SORT l STORE w_1|TYPE w_1
        SORT none STORE l|EXISTS l
        RPUSH p "" " 5" -inf 1e3|SORT p|RPUSH q "5 "|SORT q|RPUSH n "" " 5" 1e400|SORT n
    """,
    "lcs": """
        MSET a ohmytext b mynewtext|LCS a b|LCS a b LEN|LCS a b IDX
        LCS a b IDX MINMATCHLEN 4 WITHMATCHLEN|LCS a a IDX
        LCS a none|LCS a none IDX|LCS none none LEN|SET c aaabbbaaabbb|SET d bbaabbaabbaa
        LCS c d IDX WITHMATCHLEN
        LCS d c IDX WITHMATCHLEN|LCS c d|LCS d c
    """,
    "databases": """
        SELECT x|SELECT 16|SELECT -1|SELECT 99999999999|SELECT 01|SET a 1|MOVE a x|MOVE a 99|MOVE a 0
        MOVE a 1|MOVE a 1
        SWAPDB x 1|SWAPDB 1 x|SWAPDB 0 99|SWAPDB 0 1|COPY a b DB x|COPY a b DB 99|COPY a b DB|COPY a a
        COPY a a DB 0
        COPY a a DB 1 REPLACE|COPY none b DB 99|FLUSHDB x|FLUSHDB ASYNC|DBSIZE|FLUSHALL SYNC ASYNC
        FLUSHALL SYNC
    """,
}


DIALOGUES["hyperloglog"] = "|".join(
    [
        *(
            "PFADD h",
            "PFADD h",
            "PFCOUNT h",
            "PFADD h a b c",
            "PFADD h a",
            "PFCOUNT h none",
            "PFCOUNT none",
        ),
        *(
            f"PFADD {'hij'[n % 3]} " + " ".join(map(str, range(n, 9 * n)))
            for n in (1, 9, 80, 700, 999)
        ),
        *(
            "PFCOUNT h",
            "PFCOUNT i",
            "PFCOUNT h i j",
            "PFMERGE m h i",
            "PFCOUNT m",
            "PFMERGE e",
            "PFCOUNT e",
        ),
        *(
            "SET s x",
            "PFADD s a",
            "PFCOUNT s",
            "PFMERGE s h",
            "PFMERGE h s",
            "RPUSH l x",
            "PFADD l x",
        ),
        *("PFCOUNT h l", "PFCOUNT", "PFADD", "TYPE h", "PFADD i x", "PFCOUNT i"),
    ]
)


@pytest.mark.parametrize("name", DIALOGUES)
def test_dialogues_with_redis(twins, name):
    for shape in DIALOGUES[name].replace("\n", "|").split("|"):
        words = [word.encode() for word in split(shape)]
        if words:
            twins.ask([words])


def values(r: redis.Redis) -> None:
    """Store values of all kinds, of which Redis stores some compactly, and others not."""
    numbers = [0, 1, -1, 127, 128, -4097, 4095, 70_000, -(2**23), 2**31 - 1, -(2**40), 2**63 - 1]
    texts = [
        "",
        "a",
        "b" * 63,
        "c" * 64,
        "d" * 127,
        "e" * 128,
        "f" * 4096,
        "g" * 20_000,
        "12x",
        "007",
    ]
    many = [f"element{number}" for number in range(700)]
    for number, value in enumerate([*map(str, numbers), *texts, "".join(many)]):
        r.set(f"string{number}", value)
    few = [*texts[:3], *map(str, numbers)]
    for name, members in (("few", few), ("long", texts), ("many", many)):
        r.rpush(f"list_{name}", *numbers, *members)
        r.sadd(f"set_{name}", *members)
        r.hset(f"hash_{name}", mapping=dict(zip(members, reversed(members), strict=True)))
        r.zadd(f"zset_{name}", {one: (at - 5) / 4 for at, one in enumerate(members)})
    r.pfadd("string_few_counted", *range(100))
    r.pfadd("string_many_counted", *range(10_000))
    r.sadd("set_integers", *numbers)
    r.sadd("set_small_integers", *numbers[:5])
    r.zadd("zset_infinite", {"a": "inf", "b": "-inf"})


def content(r: redis.Redis, key: bytes) -> object:
    """Return a value."""
    reading: dict[object, Callable[[], object]] = {
        b"string": lambda: r.pfcount(key) if key.endswith(b"_counted") else r.get(key),
        b"list": lambda: r.lrange(key, 0, -1),
        b"set": lambda: r.smembers(key),
        b"hash": lambda: r.hgetall(key),
        b"zset": lambda: r.zrange(key, 0, -1, withscores=True),
    }
    return reading[r.type(key)]()


@pytest.mark.parametrize("from_redis", [True, False])
def test_values_move_between_redis_and_the_example_by_dump_and_restore(
    server, real_redis, from_redis
):
    with redis.Redis(port=real_redis) as theirs, redis.Redis(port=server.port) as ours:
        source, target = (theirs, ours) if from_redis else (ours, theirs)
        source.flushall()
        target.flushall()
        values(source)
        for key in source.scan_iter():
            assert target.restore(key, 0, source.dump(key))
            assert content(target, key) == content(source, key), key
        assert target.dbsize() == source.dbsize() > 30


def test_what_restore_refuses(twins, real_redis):
    with redis.Redis(port=real_redis) as r:
        r.set("x", "hello")
        good = r.dump("x")
        r.delete("x")
    words = [b"RESTORE", b"k"]
    for rest in (
        *(
            [b"x", good],
            [b"-1", good],
            [b"0", b""],
            [b"0", b"y"],
            [b"0", good[:-1] + b"?"],
            [b"0", good],
        ),
        *(
            [b"0", good],
            [b"0", good, b"REPLACE"],
            [b"0", good, b"ZZ"],
            [b"1", good, b"REPLACE", b"ABSTTL"],
        ),
        *([b"99999999", good], [b"0", good, b"IDLETIME", b"x"], [b"0", good, b"IDLETIME", b"-1"]),
        *([b"0", good, b"FREQ", b"256"], [b"0", good, b"FREQ", b"1", b"IDLETIME", b"1"], [b"0"]),
        [b"0", good, b"REPLACE", b"FREQ", b"1"],
    ):
        twins.ask([words + rest, [b"GET", b"k"], [b"DUMP", b"none"]])


@pytest.mark.parametrize("number", ["1e400", "-1e9999", "1e999999999"])
@pytest.mark.parametrize("command", ["INCRBYFLOAT large", "HINCRBYFLOAT larger f"])
def test_a_number_that_is_too_large_is_refused_in_words(server, command, number):
    with (
        redis.Redis(port=server.port) as client,
        pytest.raises(redis.ResponseError, match="produce NaN or Infinity"),
    ):
        client.execute_command(*command.split(), number)
