"""Streams of the Redis example: replies beside a real Redis, redis-py, and workers that are killed."""

from __future__ import annotations

import contextlib
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

from tests.clients.harness import TIMEOUT, Killer, redis_client, redis_server
from tests.clients.redis_twin import Reader, packed
from tests.clients.stream_load import entries_of, run_group
from tests.clients.streams_twin import commands, comparable
from tests.servers import EXAMPLES, run_server

REDIS = EXAMPLES / "redis" / "redis_server.py"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with run_server(REDIS, tmp_path_factory.mktemp("redis"), "--workers", "4") as running:
        yield running


@pytest.fixture
def fresh(server):
    assert server.converse(b"FLUSHALL\r\n") == b"+OK\r\n"
    return server


@pytest.fixture(scope="module")
def real_redis(tmp_path_factory):
    with redis_server(tmp_path_factory.mktemp("real")) as number:
        yield number


@pytest.mark.parametrize("version", [2, 3])
def test_replies_to_random_commands_for_streams_equal_those_of_redis(fresh, real_redis, version):
    with contextlib.ExitStack() as stack:
        readers = []
        for number in (real_redis, fresh.port):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", number), TIMEOUT))
            sock.sendall(packed([b"HELLO", b"%d" % version]) + packed([b"FLUSHALL"]))
            reader = Reader(stack.enter_context(sock.makefile("rb")))
            reader.reply()
            reader.reply()
            readers.append((sock, reader))
        for words in commands(version, 2000):
            for sock, _ in readers:
                sock.sendall(packed(words))
            theirs, ours = (comparable(words, reader.reply()) for _, reader in readers)
            assert ours == theirs, words


@pytest.mark.parametrize("version", [2, 3])
def test_a_consumer_group_of_redis_py(fresh, version):
    with redis_client(fresh, protocol=version) as r:
        ids = [r.xadd("orders", {"number": number}) for number in range(20)]
        assert ids == sorted(ids, key=lambda one: [*map(int, one.split("-"))])
        assert r.xlen("orders") == 20
        assert r.xrange("orders", count=1) == [(ids[0], {"number": "0"})]
        assert r.xgroup_create("orders", "shop", "0")
        assert [one for one, _ in entries_of(r.xreadgroup("shop", "ann", {"orders": ">"}, 5))] == (
            ids[:5]
        )
        assert [one for one, _ in entries_of(r.xreadgroup("shop", "bob", {"orders": ">"}, 5))] == (
            ids[5:10]
        )
        assert r.xack("orders", "shop", *ids[:3]) == 3
        assert r.xpending("orders", "shop") == {
            "pending": 7,
            "min": ids[3],
            "max": ids[9],
            "consumers": [{"name": "ann", "pending": 2}, {"name": "bob", "pending": 5}],
        }
        _, claimed, gone = r.xautoclaim("orders", "shop", "cat", 0, "0-0", count=2)
        assert ([one for one, _ in claimed], gone) == (ids[3:5], [])
        assert r.xinfo_groups("orders")[0]["lag"] == 10
        assert [one["pending"] for one in r.xinfo_consumers("orders", "shop")] == [0, 5, 2]
        assert r.xinfo_stream("orders", full=True)["length"] == 20
        assert r.xtrim("orders", maxlen=5, approximate=False) == 15


def test_a_stream_is_copied_renamed_and_listed_with_its_groups(fresh):
    with redis_client(fresh) as r:
        r.xadd("a", {"f": "v" * 10_000}, id="1-1")
        r.xgroup_create("a", "g" * 5000, "0")
        r.xreadgroup("g" * 5000, "c" * 5000, {"a": ">"})
        assert r.copy("a", "b")
        assert r.rename("a", "c")
        for name in ("b", "c"):
            assert r.type(name) == "stream"
            assert r.xrange(name) == [("1-1", {"f": "v" * 10_000})]
            (pending,) = r.xpending_range(name, "g" * 5000, "-", "+", 10)
            assert pending["consumer"] == "c" * 5000
        assert sorted(r.scan_iter(_type="stream")) == ["b", "c"]
        assert r.xack("b", "g" * 5000, "1-1") == 1
        assert r.xpending("c", "g" * 5000)["pending"] == 1
        assert r.delete("b", "c") == 2
        assert r.xlen("c") == 0


@contextlib.contextmanager
def waiting(server, *consumers):
    """Have clients wait as consumers of the group g of the stream s; give what each gets, or its error."""

    def wait(name):
        with redis_client(server) as r:
            try:
                return entries_of(r.xreadgroup("g", name, {"s": ">"}, 1, block=0))
            except redis.ResponseError as error:
                return str(error)

    with redis_client(server) as r, ThreadPoolExecutor(len(consumers)) as pool:
        futures = [pool.submit(wait, name) for name in consumers]
        # Each has looked once its consumer exists.
        while {one["name"] for one in r.xinfo_consumers("s", "g")} < set(consumers):
            pass
        yield futures


@pytest.fixture
def client(fresh):
    with redis_client(fresh) as r:
        yield r


def test_consumers_of_a_group_that_wait_get_one_new_entry_each(fresh, client):
    client.xgroup_create("s", "g", "$", mkstream=True)
    names = [f"c{number}" for number in range(8)]
    with waiting(fresh, *names) as futures:
        with client.pipeline(transaction=False) as pipe:
            for number in range(5):
                pipe.xadd("s", {"number": number})
            ids = pipe.execute()
        ids += [client.xadd("s", {"number": number}) for number in range(5, 8)]
        got = [future.result(TIMEOUT) for future in futures]
    assert sorted(one for ((one, _),) in got) == sorted(ids)
    assert {one["pending"] for one in client.xinfo_consumers("s", "g")} == {1}


@pytest.mark.parametrize(
    "command",
    [
        *("DEL s", "RENAME s other", "SET s text", "XGROUP DESTROY s g", "FLUSHALL", "SWAPDB 0 1"),
        "PEXPIRE s 0",
    ],
)
def test_the_end_of_a_stream_or_group_ends_the_wait_of_its_consumers(fresh, client, command):
    client.xgroup_create("s", "g", "$", mkstream=True)
    with waiting(fresh, "c", "d") as futures:
        client.execute_command(*command.split())
        for future in futures:
            assert "no longer exists" in future.result(TIMEOUT)


def test_a_stream_that_takes_the_place_of_another_is_read_by_those_that_wait(fresh, client):
    client.xgroup_create("s", "g", "$", mkstream=True)
    client.xgroup_create("new", "g", "$", mkstream=True)
    client.xadd("new", {"f": "v"}, id="7-7")
    with waiting(fresh, "c") as (future,):
        client.rename("new", "s")
        assert future.result(TIMEOUT) == [("7-7", {"f": "v"})]


def test_all_readers_that_wait_get_what_is_added_from_then_on(fresh, client):
    old = client.xadd("s", {"f": "old"})

    def read(start):
        with redis_client(fresh) as r:
            return entries_of(r.xread({"none": "0", "s": start}, block=0))

    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(read, start) for start in ("$", "$", old, "0")]
        while not all(future.done() for future in futures[:3]):
            client.xadd("s", {"f": "new"})
        for future in futures[:3]:
            assert {fields["f"] for _, fields in future.result()} == {"new"}
        assert futures[3].result()[0] == (old, {"f": "old"})


def test_a_wait_ends_with_its_time_and_at_once_within_a_transaction(client):
    assert client.xread({"s": "$"}, block=1) in ({}, [])
    with client.pipeline() as pipe:
        pipe.xread({"s": "$"}, block=0)
        assert pipe.execute()[0] in ({}, [])
    with pytest.raises(redis.ResponseError, match="timeout is out of range"):
        client.xread({"s": "$"}, block=2**63 - 1)


def test_kills_lose_no_entry_and_hand_none_to_two_consumers(tmp_path):
    with (
        run_server(REDIS, tmp_path, "--workers", "6", "--poison-deaths", "0") as server,
        Killer(server, 10) as killer,
    ):
        assert run_group(server, killer, 10).acknowledged > 10
    assert "handler failed" not in server.text
