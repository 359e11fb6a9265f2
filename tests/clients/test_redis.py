"""Redis clients with the Redis example and with a plain Resp app; replies beside a real Redis."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor

import coredis
import pexpect
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

import linepool.testing
from linepool.testing import assert_split_invariant
from tests.clients.harness import (
    TIMEOUT,
    Killer,
    Recorder,
    all_together,
    nutcracker,
    output,
    redis_client,
    redis_server,
)
from tests.clients.redis_twin import Reader, commands, comparable, packed
from tests.servers import EXAMPLES, run_server
from tests.unit.tiny_redis import tiny_redis

REDIS = EXAMPLES / "redis" / "redis_server.py"
BENCHMARK = "ping,set,get,incr,lpush,lpop,sadd,hset,zadd,mset"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with run_server(REDIS, tmp_path_factory.mktemp("redis"), "--workers", "6:16") as running:
        yield running


@pytest.fixture
def fresh(server):
    assert server.converse(b"FLUSHALL\r\n") == b"+OK\r\n"
    return server


@pytest.fixture(scope="module")
def real_redis(tmp_path_factory):
    with redis_server(tmp_path_factory.mktemp("real")) as number:
        yield number


@pytest.fixture
def plain_server():
    """A Resp app without the commands about the server that the example adds."""
    with linepool.testing.serve(tiny_redis(), workers=1) as running:
        yield running


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize(("seed", "together"), [(0, 1), (1, 5), (2, 40)])
def test_replies_to_random_commands_equal_those_of_redis(
    fresh, real_redis, seed, together, version
):
    start = packed([b"HELLO", b"%d" % version]) + packed([b"FLUSHALL"])
    with contextlib.ExitStack() as stack:
        readers = []
        for number in (real_redis, fresh.port):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", number), TIMEOUT))
            sock.sendall(start)
            reader = Reader(stack.enter_context(sock.makefile("rb")))
            reader.reply()
            reader.reply()
            readers.append((sock, reader))
        sent = commands(seed, 3000)
        while batch := list(itertools.islice(sent, together)):
            for sock, _ in readers:
                sock.sendall(b"".join(map(packed, batch)))
            for words in batch:
                theirs, ours = (comparable(words, reader.reply()) for _, reader in readers)
                assert ours == theirs, words


@pytest.mark.parametrize("version", [2, 3])
def test_redis_py(fresh, version):
    with redis_client(fresh, protocol=version) as r:
        assert r.ping()
        assert r.set("a", "1", ex=100)
        assert r.get("a") == "1"
        assert r.incr("a", 5) == 6
        assert 0 < r.ttl("a") <= 100
        assert r.hset("h", mapping={"x": "1", "y": "2"}) == 2
        assert r.hgetall("h") == {"x": "1", "y": "2"}
        assert r.rpush("l", "a", "b", "c") == 3
        assert r.lrange("l", 0, -1) == ["a", "b", "c"]
        assert r.sadd("s", "a", "b") == 2
        assert r.smembers("s") == {"a", "b"}
        assert r.zadd("z", {"a": 1, "b": 2.5}) == 2
        scored = [tuple(pair) for pair in r.zrange("z", 0, -1, withscores=True)]
        assert scored == [("a", 1.0), ("b", 2.5)]
        assert r.zscore("z", "b") == 2.5
        assert sorted(r.scan_iter(count=2)) == ["a", "h", "l", "s", "z"]
        assert dict(r.hscan_iter("h")) == {"x": "1", "y": "2"}
        with pytest.raises(redis.ResponseError, match="wrong kind"):
            r.lpush("a", "x")
        with pytest.raises(redis.ResponseError, match="unknown command"):
            r.execute_command("NOSUCH")
        assert r.client_setname("me")
        assert r.client_getname() == "me"
        assert r.dbsize() == 5
        assert r.info()["redis_version"]
        assert r.command_count() > 100
        assert r.config_get("save") == {"save": ""}
        assert r.client_info()["name"] == "me"
        assert [one["name"] for one in r.client_list()] == ["me"]
        assert r.delete("a", "h", "l", "s", "z", "none") == 5


def test_confirmations_of_subscriptions_are_sent_while_replies_are_off(fresh):
    said = fresh.converse(b"CLIENT REPLY OFF\r\nGET a\r\nSUBSCRIBE news\r\n")
    assert said == b"*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n"


@pytest.mark.parametrize("version", [2, 3])
def test_pipelines_and_transactions_of_redis_py(fresh, version):
    with redis_client(fresh, protocol=version) as r:
        pipe = r.pipeline(transaction=False)
        for number in range(500):
            pipe.set(f"k{number}", number)
        assert pipe.execute() == [True] * 500
        with r.pipeline() as pipe:
            pipe.multi()
            pipe.incr("n")
            pipe.lpush("n", "x")
            pipe.get("n")
            first, second, third = pipe.execute(raise_on_error=False)
        assert (first, third) == (1, "1")
        assert isinstance(second, redis.ResponseError)
        with r.pipeline() as pipe:
            pipe.watch("n")
            with redis_client(fresh) as other:
                other.set("n", "7")
            pipe.multi()
            pipe.set("n", "8")
            with pytest.raises(redis.WatchError):
                pipe.execute()
        assert r.get("n") == "7"

        def double(pipe):
            value = int(pipe.get("n"))
            pipe.multi()
            pipe.set("n", 2 * value)

        assert r.transaction(double, "n") == [True]
        assert r.get("n") == "14"


@pytest.mark.parametrize("version", [2, 3])
def test_publish_and_subscribe_with_redis_py(fresh, version):
    with redis_client(fresh, protocol=version) as r, r.pubsub() as subscriber:
        subscriber.subscribe("news")
        assert subscriber.get_message(timeout=TIMEOUT)["type"] == "subscribe"
        with redis_client(fresh) as other:
            assert other.publish("news", "hello") == 1
            with other.pipeline() as pipe:
                pipe.set("a", "1")
                pipe.publish("news", "from a transaction")
                assert pipe.execute() == [True, 1]
        texts = [subscriber.get_message(timeout=TIMEOUT)["data"] for _ in range(2)]
        assert texts == ["hello", "from a transaction"]


@pytest.mark.parametrize("version", [2, 3])
def test_redis_py_works_with_a_plain_app(plain_server, version):
    with redis_client(plain_server, protocol=version, client_name="me") as r:
        assert r.ping()
        assert r.client_getname() == "me"
        assert r.set("a", "1")
        with r.pipeline() as pipe:
            pipe.incrby("a", 5)
            pipe.get("a")
            assert pipe.execute() == [6, "6"]
        names = r.command_list()
        assert r.command_count() == len([name for name in names if "|" not in name]) < len(names)
        with pytest.raises(redis.ResponseError, match="unknown command 'CONFIG'"):
            r.config_get("save")


def test_transactions_in_different_workers_do_not_interleave(fresh):
    def move(number: int) -> None:
        with redis_client(fresh) as r:
            for _ in range(100):
                with r.pipeline() as pipe:
                    pipe.incrby("left", number)
                    pipe.decrby("right", number)
                    pipe.mget("left", "right")
                    *_, (left, right) = pipe.execute()
                    assert int(left) + int(right) == 0

    all_together(4, move)


def test_coredis(fresh):
    async def talk():
        r = coredis.Redis(host="127.0.0.1", port=fresh.port, decode_responses=True)
        async with r:
            assert await r.set("a", "1")
            assert await r.incr("a") == 2
            await r.hset("h", {"x": "1"})
            assert await r.hgetall("h") == {"x": "1"}
            await r.zadd("z", {"a": 1.5})
            assert await r.zscore("z", "a") == 1.5
            assert await r.sadd("s", ["a"]) == 1
            assert await r.smembers("s") == {"a"}

    asyncio.run(talk())


def test_coredis_works_with_a_plain_app(plain_server):
    async def talk():
        r = coredis.Redis(
            host="127.0.0.1",
            port=int(plain_server.address.rpartition(":")[2]),
            decode_responses=True,
        )
        async with r:
            assert await r.ping() == "PONG"
            assert await r.set("a", "1")
            assert await r.incrby("a", 5) == 6

    asyncio.run(talk())


def test_redis_cli_works_with_a_plain_app(plain_server):
    cli = pexpect.spawn(
        "redis-cli", ["-p", plain_server.address.rpartition(":")[2]], timeout=10, encoding="utf-8"
    )
    prompt = r"127\.0\.0\.1:\d+> "
    for line, reply in (
        ('SET greeting "hello"', "OK"),
        ("GET greeting", '"hello"'),
        ("HELLO 3", "3# "),
        ("INFO", "ERR unknown command 'INFO'"),
    ):
        cli.expect(prompt)
        cli.send(line + "\r")
        cli.expect(reply)
    cli.expect(prompt)
    cli.send("quit\r")
    cli.expect(pexpect.EOF)
    cli.close()


def test_redis_benchmark_works_with_a_plain_app_although_config_is_unknown(plain_server):
    said = output(
        *("redis-benchmark", "-p", plain_server.address.rpartition(":")[2], "-t", "ping,set,get"),
        *("-n", 2000, "-c", 4, "--csv"),
    )
    rows = re.findall(r'^"([^"]+)","([0-9.]+)"', said, re.M)
    assert len(rows) == 4
    assert all(float(rate) > 0 for _, rate in rows)


def test_a_session_with_redis_cli(fresh):
    cli = pexpect.spawn("redis-cli", ["-p", str(fresh.port)], timeout=10, encoding="utf-8")
    prompt = r"127\.0\.0\.1:\d+(\(TX\))?> "
    for line, reply in (
        ('SET greeting "hello \\x41"', "OK"),
        ("GET greeting", '"hello A"'),
        ("INCR greeting", r"\(error\) ERR value is not an integer or out of range"),
        ("HSET h a 1 b 2", r"\(integer\) 2"),
        ("HELLO 3", "3# "),
        ("ZADD z 1.5 a", r"\(integer\) 1"),
        ("ZSCORE z a", r"\(double\) 1.5"),
        ("MULTI", "OK"),
        ("PING", "QUEUED"),
        ("EXEC", "1\\) PONG"),
        ("NOSUCH", "unknown command"),
    ):
        cli.expect(prompt)
        cli.send(line + "\r")
        cli.expect(reply)
    cli.expect(prompt)
    cli.send("quit\r")
    cli.expect(pexpect.EOF)
    cli.close()


@pytest.mark.parametrize("pipeline", [1, 16])
def test_redis_benchmark(fresh, pipeline):
    said = output(
        *("redis-benchmark", "-p", fresh.port, "-t", BENCHMARK, "-P", pipeline),
        *("-n", 2000, "-c", 4, "--csv"),
    )
    rows = re.findall(r'^"([^"]+)","([0-9.]+)"', said, re.M)
    assert len(rows) == 11
    assert all(float(rate) > 0 for _, rate in rows)
    assert "rror" not in said


def test_twemproxy_in_front(fresh, tmp_path):
    with nutcracker(tmp_path, fresh, redis=True) as front:
        words = [word for number in range(50) for word in (f"k{number}", str(number))]
        assert output("redis-cli", "-p", front, "mset", *words) == "OK\n"
        said = output("redis-cli", "-p", front, "mget", *words[::2])
        assert said.split() == words[1::2]
        assert output("redis-cli", "-p", front, "hset", "h", "f", "v") == "1\n"
        assert output("redis-cli", "-p", front, "incrby", "k7", "5") == "12\n"
        assert output("redis-cli", "-p", front, "del", "k1", "k2", "none") == "2\n"


def test_incr_from_8_workers_at_once_is_exact(tmp_path):
    with run_server(REDIS, tmp_path, "--workers", "8") as server:

        def count(_: int) -> None:
            assert server.converse(b"INCR n\r\n" * 1000).count(b":") == 1000

        all_together(8, count)
        assert server.converse(b"GET n\r\n") == b"$4\r\n8000\r\n"


def test_kills_lose_no_acknowledged_write(tmp_path):
    with run_server(REDIS, tmp_path, "--workers", "8") as server, Killer(server, 20) as killer:

        def write(number: int) -> tuple[int, int]:
            known = tried = 0
            once = Retry(NoBackoff(), 0)  # or it would push twice by itself
            with redis_client(server, socket_timeout=10, retry=once) as r:
                while killer.killed < 20:
                    tried += 1
                    with contextlib.suppress(redis.ConnectionError, redis.ResponseError):
                        pipe = r.pipeline()
                        pipe.set(f"k{number}", tried)
                        pipe.rpush(f"l{number}", tried)
                        pipe.execute()
                        known = tried
            return known, tried

        with ThreadPoolExecutor(4) as pool:
            outcomes = list(pool.map(write, range(4)))
        with redis_client(server) as r:
            for number, (known, tried) in enumerate(outcomes):
                assert known <= int(r.get(f"k{number}")) <= tried
                pushed = list(map(int, r.lrange(f"l{number}", 0, -1)))
                assert pushed == sorted(set(pushed))
                assert pushed[-1] == int(r.get(f"k{number}"))
        assert sum(known for known, _ in outcomes) > 100


def test_redis_benchmark_goes_on_with_others_while_workers_are_killed(tmp_path):
    """redis-benchmark itself ends at the first lost connection; so it runs again and again."""
    with run_server(REDIS, tmp_path, "--workers", "8") as server:
        command = [
            "redis-benchmark",
            "-p",
            str(server.port),
            "-t",
            "incr",
            "-n",
            "2000",
            "-c",
            "4",
            "-q",
        ]
        with Killer(server, 10) as killer:
            while killer.killed < 10:
                subprocess.run(command, capture_output=True, timeout=TIMEOUT, check=False)
        said = output(*command)
        assert "requests per second" in said
        count = int(server.converse(b"GET counter:__rand_int__\r\n").split(b"\r\n")[1])
        assert count >= 2000


def test_keys_expire_and_a_full_store_says_so(tmp_path):
    with (
        run_server(REDIS, tmp_path, "--workers", "2", REDIS_SIZE_MB="4") as server,
        redis_client(server) as r,
    ):
        r.set("short", "x", px=1)
        r.set("kept", "y")
        while r.exists("short"):
            pass
        assert r.get("short") is None
        many = {f"big{number}": "z" * 100_000 for number in range(100)}
        for number in range(20):
            r.set(f"big{number}", many[f"big{number}"])
        with pytest.raises(redis.ResponseError, match="maxmemory"):
            r.mset(many)
        assert r.get("kept") == "y"
        assert r.get("big0") == "z" * 100_000
        for number in range(40):
            r.delete(f"big{number}")
        assert r.set("again", "z" * 1000)
    assert "handler failed" not in server.text


def test_commands_that_are_sent_together_see_what_those_before_them_did(fresh):
    long, other = b"a" * 100_000, b"b" * 100_000
    with redis_client(fresh) as r, r.pipeline(transaction=False) as pipe:
        r.set("k", long)
        pipe.get("k").strlen("k").set("k", other).get("k").incr("n").mget("k", "n").delete("k")
        assert pipe.execute() == [
            *(long.decode(), len(long), True, other.decode(), 1),
            *([other.decode(), "1"], 1),
        ]
        pipe.set("s", "text", px=60_000).hset("h", "f", "v").lpush("s", "x").get("s").hget("h", "f")
        replies = pipe.execute(raise_on_error=False)
        assert replies[:2] == [True, 1]
        assert "wrong kind of value" in str(replies[2])
        assert replies[3:] == ["text", "v"]


def test_an_interrupted_command_takes_along_those_that_were_sent_with_it(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES / "redis"))
    from db import Db
    from key_store import Store
    from layout import STRING

    def put(key: bytes, db: Db, *, interrupted: bool = False) -> None:
        with db.write() as t:
            t.save(t.made(key, STRING))
            if interrupted:
                raise linepool.RequestTimeout

    def present(db: Db, *keys: bytes) -> list[bool]:
        with db.read() as t:
            return [t.find(key) is not None for key in keys]

    store = Store(str(tmp_path), 16 * 2**20)
    alone = store.db
    with pytest.raises(linepool.RequestTimeout):
        put(b"a", alone, interrupted=True)
    put(b"b", alone)
    assert present(alone, b"a", b"b") == [False, True]
    alone.end()

    for joins in (False, True):
        joined = Db(store)
        put(b"c", joined)
        with pytest.raises(linepool.RequestTimeout):
            put(b"d", joined, interrupted=True)
        if joins:
            with pytest.raises(RuntimeError, match="failed in its changes"), joined.together():
                pytest.fail("a MULTI began")
            put(b"e", joined)
        with pytest.raises(RuntimeError, match="failed in its changes"):
            joined.end()

    multi = Db(store)
    put(b"f", multi)
    with pytest.raises(linepool.RequestTimeout), multi.together():
        put(b"g", multi, interrupted=True)
    multi.end()
    assert present(Db(store), *map(bytes, zip(b"abcdefg"))) == [
        False,
        True,
        *[False] * 3,
        True,
        False,
    ]
    store.close()


def test_what_a_full_store_refuses_of_commands_sent_together_is_not_there(tmp_path):
    with (
        run_server(REDIS, tmp_path, "--workers", "1", REDIS_SIZE_MB="2") as server,
        redis_client(server) as r,
    ):
        for number in range(40):
            pipe = r.pipeline(transaction=False)
            names = [f"{number}:{part}" for part in range(8)]
            for name in names:
                pipe.set(name, name.ljust(10_000))
            try:
                replies = pipe.execute(raise_on_error=False)
            except redis.ConnectionError:  # a batch that filled the store: no reply but an error
                replies = []
            stored = [name for name, reply in zip(names, replies, strict=False) if reply is True]
            assert [r.strlen(name) for name in stored] == [10_000] * len(stored)
            assert sum(map(r.exists, names)) == len(stored)
            if len(stored) < len(names):
                break
        else:
            pytest.fail("the store never became full")
        assert not stored or all("maxmemory" in str(one) for one in replies[len(stored) :])
        assert r.delete("0:0") == 1


def test_what_clients_send_may_be_cut_anywhere(fresh):
    with (
        Recorder(fresh) as recorder,
        redis.Redis("127.0.0.1", recorder.port, protocol=3, client_name="me") as r,
    ):
        r.set("a", "1", ex=10)
        r.get("a")
        r.mget("a", "b")
        with r.pipeline() as pipe:
            pipe.incrby("a", 5)
            pipe.delete("a")
            pipe.execute()
        with contextlib.suppress(redis.ResponseError):
            r.execute_command("NOSUCH", "x")
        r.connection_pool.disconnect()
    with Recorder(fresh) as other:
        output("redis-cli", "-p", other.port, "set", "k", "a b\r\nc")
    assert b"HELLO" in recorder.sent
    assert_split_invariant(tiny_redis(), recorder.sent + other.sent)


def test_linepools_client_logs_in_at_redis(real_redis):
    with redis.Redis(port=real_redis) as r:
        r.config_set("requirepass", "open")
        try:
            for user in (None, "default"):
                with linepool.Client(
                    str(real_redis), protocol="resp", user=user, password="open"
                ) as client:
                    assert client.call("ECHO", "x") == b"x"
            with (
                linepool.Client(str(real_redis), protocol="resp", password="wrong") as client,
                pytest.raises(linepool.client.LoginRefused, match="invalid username-password pair"),
            ):
                client.call("PING")
        finally:
            r.execute_command("AUTH", "open")
            r.config_set("requirepass", "")
