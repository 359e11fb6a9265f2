"""The memcached example with real clients."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import memcache as python_memcached
import pylibmc
import pytest
from pymemcache.client.base import Client
from pymemcache.exceptions import MemcacheError

import linepool
import linepool.testing
from linepool.cache import Item, Store
from linepool.testing import assert_split_invariant
from tests.clients.harness import Killer, Recorder, all_together, nutcracker, output
from tests.servers import ENVIRONMENT, EXAMPLES, run_server
from tests.unit.memory_store import memory_store

MEMCACHED = EXAMPLES / "memcached" / "memcached.py"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with run_server(
        MEMCACHED, tmp_path_factory.mktemp("memcached"), "--workers", "4:16"
    ) as running:
        yield running


@pytest.fixture
def fresh(server):
    assert server.converse(b"flush_all\r\n") == b"OK\r\n"
    return server


def test_memccapable_passes_all_27_tests(fresh):
    said = output("memccapable", "-a", "-h", "127.0.0.1", "-p", fresh.port)
    assert said.count("[pass]") == 27
    assert "All tests passed" in said


def test_memcaslap_verifies_every_value(fresh):
    where = f"127.0.0.1:{fresh.port}"
    said = output("memcaslap", "-s", where, "-T", 1, "-c", 4, "-x", 10000, "-v", "1.0", "-d", 4)
    for line in ("get_misses: 0", "verify_misses: 0", "verify_failed: 0"):
        assert line in said
    assert "ERROR" not in said.upper()


def test_pymemcache(fresh):
    client = Client(("127.0.0.1", fresh.port), default_noreply=True)
    client.set("a", "1")  # noreply, as it does by default
    client.set("b", b"x" * 100_000, expire=100)
    assert client.get_many(["a", "b", "c"]) == {"a": b"1", "b": b"x" * 100_000}
    assert client.add("a", "2", noreply=False) is False
    assert client.replace("c", "2", noreply=False) is False
    assert client.incr("a", 41, noreply=False) == 42
    client.append("a", "!")
    client.prepend("a", "<")
    value, number = client.gets("a")
    assert value == b"<42!"
    assert client.cas("a", "new", number, noreply=False) is True
    assert client.cas("a", "newer", number, noreply=False) is False
    assert client.cas("none", "x", number, noreply=False) is None
    assert client.touch("a", 100, noreply=False) is True
    assert client.delete_many(["a", "b"], noreply=False) is True
    assert client.get("a") is None
    assert client.version().startswith(b"1.6")
    assert client.stats()[b"curr_items"] == 0
    with pytest.raises(MemcacheError):
        client.set("big", b"x" * 2_000_000, noreply=False)
    assert client.raw_command(b"mn", b"\r\n") == b"MN"
    client.close()


def test_python_memcached(fresh):
    client = python_memcached.Client([fresh.address])
    assert client.set("a", {"any": "thing"}, time=100)
    assert client.get("a") == {"any": "thing"}
    assert client.set_multi({f"k{n}": n for n in range(100)}) == []
    assert client.get_multi([f"k{n}" for n in range(100)]) == {f"k{n}": n for n in range(100)}
    assert client.add("k1", 5) == 0
    assert client.incr("k1", 5) == 6
    assert client.decr("k1", 10) == 0
    assert client.gets("k1") == 0
    assert client.cas("k1", 7)
    assert client.touch("k1", 100)
    assert client.delete("k1")
    assert client.get("k1") is None
    assert client.get_stats()[0][1]["cmd_get"]
    client.disconnect_all()


def test_the_cache_of_django(fresh):
    from django.conf import settings
    from django.core.cache.backends.memcached import PyMemcacheCache

    if not settings.configured:
        settings.configure()
    cache = PyMemcacheCache(fresh.address, {"TIMEOUT": 100, "KEY_PREFIX": "site"})
    cache.set("a", {"any": ["thing"]})
    assert cache.get("a") == {"any": ["thing"]}
    assert cache.add("a", 1) is False
    assert cache.get_or_set("n", lambda: 5) == 5
    assert cache.incr("n", 3) == 8
    assert cache.decr("n") == 7
    with pytest.raises(ValueError, match="none"):
        cache.incr("none")
    assert cache.set_many({f"k{n}": n for n in range(100)}) == []
    assert cache.get_many([f"k{n}" for n in range(101)]) == {f"k{n}": n for n in range(100)}
    assert cache.touch("a", 50) is True
    assert cache.incr_version("n") == 2
    assert (cache.get("n"), cache.get("n", version=2)) == (None, 7)
    cache.set("gone", 1, timeout=0)
    assert "gone" not in cache
    cache.delete_many(["k1", "k2"])
    assert cache.get("k1") is None
    assert cache.delete("a") is True
    cache.clear()
    assert cache.get("k3") is None
    cache.close()


def test_pylibmc(fresh):
    client = pylibmc.Client([fresh.address], behaviors={"cas": True, "tcp_nodelay": True})
    assert client.set("a", "text", time=100)
    assert client.get("a") == "text"
    assert client.set_multi({f"k{n}": "v" * n for n in range(50)}) == []
    assert client.get_multi([f"k{n}" for n in range(50)])["k49"] == "v" * 49
    assert client.set("n", 5)
    assert client.incr("n", 3) == 8
    value, number = client.gets("n")
    assert client.cas("n", value + 1, number)
    with pytest.raises(pylibmc.NotFound):
        client.incr("none")
    assert client.append("a", "!")
    assert client.delete("a")
    assert client.get("a") is None
    client.disconnect_all()


@pytest.mark.filterwarnings("ignore:Exception ignored:pytest.PytestUnraisableExceptionWarning")
def test_a_meta_client(fresh):  # the filter: it leaves its sockets to the garbage collector
    from meta_memcache import CacheClient, Key, ServerAddress, connection_pool_factory_builder

    pool = CacheClient.cache_client_from_servers(
        servers=[ServerAddress("127.0.0.1", fresh.port)],
        connection_pool_factory_fn=connection_pool_factory_builder(),
    )
    assert pool.set(key=Key("a"), value="text", ttl=100)
    assert pool.get(key=Key("a")) == "text"
    assert pool.set(key=Key("long" * 100), value=b"bytes", ttl=100)  # sent in base64
    assert pool.multi_get(keys=[Key("a"), Key("none")]) == {Key("a"): "text", Key("none"): None}
    assert pool.delta(key=Key("n"), delta=5, refresh_ttl=None) is False
    assert pool.delta_initialize(key=Key("n"), delta=1, initial_value=10, initial_ttl=100)
    assert pool.delta_and_get(key=Key("n"), delta=5) == 15
    _, number = pool.get_cas(key=Key("a"))
    assert pool.set(key=Key("a"), value="new", ttl=100, cas_token=number)
    assert not pool.set(key=Key("a"), value="newer", ttl=100, cas_token=number)
    assert pool.invalidate(key=Key("a"))
    assert pool.delete(key=Key("n"))


def test_twemproxy_in_front(fresh, tmp_path):
    with nutcracker(tmp_path, fresh, redis=False) as front:
        client = Client(("127.0.0.1", front), default_noreply=False)
        for number in range(200):
            assert client.set(f"k{number}", str(number))
        keys = [f"k{number}" for number in range(200)]
        assert client.get_many(keys) == {key: key[1:].encode() for key in keys}
        assert client.incr("k7", 1) == 8
        assert client.delete("k7")
        assert client.get("k7") is None
        client.close()


def test_incr_from_8_workers_at_once_is_exact(tmp_path):
    each = 1000
    with run_server(MEMCACHED, tmp_path, "--workers", "8") as server:
        server.converse(b"set n 0 0 1\r\n0\r\n")

        def count(_: int) -> None:
            assert server.converse(b"incr n 1\r\n" * each).endswith(b"\r\n")

        all_together(8, count)
        assert server.converse(b"get n\r\n") == b"VALUE n 0 4\r\n%d\r\nEND\r\n" % (8 * each)


def test_kills_lose_no_acknowledged_write(tmp_path):
    """Writers remember what was acknowledged; a write without an answer may have happened or not."""
    with run_server(MEMCACHED, tmp_path, "--workers", "8") as server, Killer(server, 20) as killer:

        def write(number: int) -> tuple[int, int]:
            at = ("127.0.0.1", server.port)
            known = tried = lost = 0
            client = Client(at, default_noreply=False, timeout=10)
            while killer.killed < 20:
                tried += 1
                try:
                    assert client.set(f"k{number}", str(tried))
                    known = tried
                    value = int(client.get(f"k{number}"))
                    assert value == known
                except (OSError, MemcacheError):
                    lost += 1
                    client.close()
                    client = Client(at, default_noreply=False, timeout=10)
                    with contextlib.suppress(OSError, MemcacheError):
                        assert known <= int(client.get(f"k{number}") or 0) <= tried
            client.close()
            return known, tried

        with ThreadPoolExecutor(4) as pool:
            outcomes = list(pool.map(write, range(4)))
        for number, (known, tried) in enumerate(outcomes):
            value = int(server.converse(b"get k%d\r\n" % number).split(b"\r\n")[1])
            assert known <= value <= tried
        assert killer.killed == 20
        assert sum(known for known, _ in outcomes) > 100


def test_memcaslap_goes_on_while_workers_are_killed(tmp_path):
    with run_server(MEMCACHED, tmp_path, "--workers", "8") as server, Killer(server, 10) as killer:
        where = f"127.0.0.1:{server.port}"
        options = ("-T", 1, "-c", 4, "-t", "3s", "-v", "1.0", "-R")
        said = output("memcaslap", "-s", where, *options)
    assert killer.killed
    assert "verify_failed: 0" in said
    assert int(re.findall(r"cmd_get: (\d+)", said)[0]) > 1000


def test_the_least_used_items_make_room(tmp_path):
    with run_server(MEMCACHED, tmp_path, "--workers", "2", MEMCACHED_MEMORY="1M") as server:
        script = b"".join(b"set k%d 0 0 1000\r\n%b\r\n" % (n, b"x" * 1000) for n in range(5000))
        assert server.converse(script) == b"STORED\r\n" * 5000
        assert server.converse(b"get k0\r\n") == b"END\r\n"
        assert server.converse(b"get k4999\r\n").startswith(b"VALUE k4999")
        stats = dict(re.findall(r"STAT (\w+) (\d+)", server.converse(b"stats\r\n").decode()))
        assert int(stats["bytes"]) <= int(stats["limit_maxbytes"]) == 2**20
        assert int(stats["curr_items"]) + int(stats["evictions"]) == 5000
        assert int(stats["cmd_set"]) == 5000
        assert server.converse(b"set big 0 0 1048000\r\n%b\r\n" % (b"x" * 1_048_000)).startswith(
            b"SERVER_ERROR"
        )
        assert server.converse(b"set small 0 0 1\r\nx\r\n") == b"STORED\r\n"


def test_items_in_memcached_dir_survive_a_restart(tmp_path):
    for script, reply in (
        (b"set a 0 0 1\r\nx\r\n", b"STORED\r\n"),
        (b"get a\r\n", b"VALUE a 0 1\r\nx\r\nEND\r\n"),
    ):
        with run_server(MEMCACHED, tmp_path, MEMCACHED_DIR=str(tmp_path / "items")) as server:
            assert server.converse(script) == reply


def test_a_worker_that_hangs_during_a_write_is_killed_and_other_workers_continue(
    tmp_path, monkeypatch
):
    monkeypatch.syspath_prepend(str(EXAMPLES / "memcached"))
    from lmdb_store import LmdbStore, opened

    def store() -> Iterator[LmdbStore]:
        yield from opened(str(tmp_path), 2**20)

    app = linepool.cache.server(store)

    @app.handler
    def freeze(key: bytes, store: Store) -> None:
        def change(old: Item | None) -> Item | None:
            os.kill(os.getpid(), signal.SIGSTOP)
            return None

        store.update(key, change)

    with (
        linepool.testing.serve(app, workers=2, request_timeout=0.3, kill_grace=0.3) as server,
        server.connect() as frozen,
        server.connect() as other,
    ):
        other.send(b"set a 0 0 1\r\nx\r\n")
        assert other.line() == "STORED"
        frozen.send(b"freeze a\r\n")
        assert frozen.line().startswith("SERVER_ERROR")
        other.send(b"get a\r\nset b 0 0 1\r\ny\r\nmn\r\n")
        assert [other.line() for _ in range(5)] == ["VALUE a 0 1", "x", "END", "STORED", "MN"]


def test_commands_that_are_sent_together_see_what_those_before_them_did(fresh):
    said = fresh.converse(
        b"set a 5 0 1\r\n1\r\nget a\r\nincr a 8\r\nmg a v t f\r\nappend a 0 0 1\r\n0\r\nget a b\r\n"
        b"set b 0 -1 1\r\nx\r\nget b\r\nflush_all\r\nadd a 0 0 1\r\n2\r\ngat 0 a\r\ndelete a\r\nget a\r\n"
    )
    assert said == (
        b"STORED\r\nVALUE a 5 1\r\n1\r\nEND\r\n9\r\nVA 1 t-1 f5\r\n9\r\n"
        b"STORED\r\nVALUE a 5 2\r\n90\r\nEND\r\n"
        b"STORED\r\nEND\r\nOK\r\nSTORED\r\nVALUE a 0 1\r\n2\r\nEND\r\nDELETED\r\nEND\r\n"
    )


def test_an_interrupted_update_takes_along_those_that_were_sent_with_it(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES / "memcached"))
    from lmdb_store import LmdbStore, opened

    for store in opened(str(tmp_path), 2**20):
        store.share()
        store.update(b"a", lambda _: Item(b"kept"))
        store.commit()

        def interrupted(*_: object) -> None:
            raise linepool.RequestTimeout

        def interrupt(key: bytes, store: LmdbStore) -> None:
            with monkeypatch.context() as patch:
                patch.setattr(store._tables, "_sweep", interrupted)
                store.update(key, lambda _: Item(b"interrupted"))

        store.share()
        with pytest.raises(linepool.RequestTimeout):
            interrupt(b"a", store)
        store.update(b"b", lambda _: Item(b"kept"))
        store.commit()

        store.share()
        store.update(b"b", lambda _: Item(b"lost"))
        with pytest.raises(linepool.RequestTimeout):
            interrupt(b"a", store)
        with pytest.raises(RuntimeError, match="interrupted"):
            store.commit()

        assert [item and item.data for item in store.read([b"a", b"b"])] == [b"kept", b"kept"]


def test_a_second_flush_does_not_bring_items_back(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES / "memcached"))
    from lmdb_store import opened

    now = 1_900_000_000
    monkeypatch.setattr("time.time", lambda: float(now))
    for store in opened(str(tmp_path), 2**20):
        store.update(b"a", lambda _: Item(b"x"))
        store.flush(now + 1)
        assert store.read([b"a"]) != [None]
        now += 2
        assert store.read([b"a"]) == [None]
        store.flush(now + 1000)
        assert store.read([b"a"]) == [None]
        assert dict(store.statistics() or {})["curr_items"] == 0


def test_a_wrong_memory_size_is_a_one_line_error(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "linepool", "run", MEMCACHED],
        env={**ENVIRONMENT, "MEMCACHED_MEMORY": "lots"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert (
        done.stderr
        == "linepool: MEMCACHED_MEMORY must be a size such as 64M, at least 1M, not 'LOTS'\n"
    )


def test_what_clients_send_may_be_cut_anywhere(fresh):
    with Recorder(fresh) as recorder:
        client = Client(("127.0.0.1", recorder.port))
        client.set("a", "1")
        client.get_many(["a", "b"])
        client.incr("a", 1, noreply=False)
        client.append("a", "x", noreply=False)
        client.gets("a")
        client.delete("a")
        client.touch("a", 5, noreply=False)
        client.close()
    with Recorder(fresh) as other:
        old = python_memcached.Client([f"127.0.0.1:{other.port}"])
        old.set_multi({"a": 1, "b": "two"})
        old.get_multi(["a", "b"])
        old.disconnect_all()
    script = recorder.sent + other.sent
    assert b"noreply" in script
    assert_split_invariant(linepool.cache.server(memory_store), script)
