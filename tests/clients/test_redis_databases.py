"""The databases of the Redis example: which keys are where."""

from __future__ import annotations

import signal
import socket
import tempfile
from pathlib import Path

import pytest
import redis

from tests.clients.harness import TIMEOUT, redis_client
from tests.clients.redis_twin import Reader, packed
from tests.servers import EXAMPLES, run_server

REDIS = EXAMPLES / "redis" / "redis_server.py"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with run_server(REDIS, tmp_path_factory.mktemp("redis"), "--workers", "2") as running:
        yield running


@pytest.fixture
def fresh(server):
    assert server.converse(b"FLUSHALL\r\n") == b"+OK\r\n"
    return server


@pytest.mark.parametrize("version", [2, 3])
def test_each_database_has_keys_of_its_own_and_a_watch_is_of_one(fresh, version):
    with (
        redis_client(fresh, protocol=version) as zero,
        redis_client(fresh, protocol=version, db=3) as three,
    ):
        for number in range(5):
            zero.set(f"zero{number}", number)
        three.rpush("a", "x", "y")
        three.expire("a", 1000)
        assert (zero.dbsize(), three.dbsize()) == (5, 1)
        assert three.randomkey() == "a"
        assert set(zero.scan_iter()) == {f"zero{number}" for number in range(5)}
        assert {zero.randomkey() for _ in range(200)} == {f"zero{number}" for number in range(5)}
        assert zero.exists("a") == 0
        assert three.move("a", 0)
        assert zero.lrange("a", 0, -1) == ["x", "y"]
        assert 0 < zero.ttl("a") <= 1000
        with zero.pipeline() as pipe:
            pipe.watch("a")
            three.set("a", "of another database")
            pipe.multi()
            pipe.llen("a")
            assert pipe.execute() == [2]
            pipe.watch("a")
            zero.swapdb(0, 3)
            pipe.multi()
            pipe.get("a")
            with pytest.raises(redis.WatchError):
                pipe.execute()
        assert three.dbsize() == 6
        assert zero.get("a") == "of another database"
        zero.flushdb()
        assert (zero.dbsize(), three.llen("a")) == (0, 2)
        zero.flushall()
        assert three.dbsize() == 0


def test_a_connection_takes_its_database_along_to_another_worker(tmp_path):
    with (
        run_server(REDIS, tmp_path, "--workers", "2") as server,
        socket.create_connection(("127.0.0.1", server.port), TIMEOUT) as sock,
    ):
        reader = Reader(sock.makefile("rb"))

        def ask(*words: bytes):
            sock.sendall(packed(list(words)))
            return reader.reply()[1]

        assert ask(b"SELECT", b"7") == b"OK"
        assert ask(b"SET", b"k", b"v") == b"OK"
        before = server.pids()
        server.send(signal.SIGHUP)
        server.wait_for("reloaded generation 2")
        for pid in before:
            server.until_gone(pid)
        assert ask(b"GET", b"k") == b"v"
        assert server.converse(b"GET k\r\nSELECT 7\r\nGET k\r\n") == b"$-1\r\n+OK\r\n$1\r\nv\r\n"
        assert ask(b"RESET") == b"RESET"
        assert ask(b"GET", b"k") == b"-1"


def test_keys_in_memory_outlive_a_reload_and_end_with_the_server(tmp_path):
    with run_server(REDIS, tmp_path, "--workers", "1") as server:
        name = f"redis-server-{server.process.pid}-*"
        assert server.converse(b"SET k v\r\n") == b"+OK\r\n"
        server.send(signal.SIGHUP)
        server.wait_for("reloaded generation 2")
        assert server.converse(b"GET k\r\n") == b"$1\r\nv\r\n"
        places = [Path("/dev/shm"), Path(tempfile.gettempdir())]
        assert sum(len(list(place.glob(name))) for place in places) == 1
    assert not any(list(place.glob(name)) for place in places)
