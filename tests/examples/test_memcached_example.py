"""The memcached example: its README, its eviction, and its figures over all workers."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from linepool.cache import Item
from tests.servers import EXAMPLES, run_server

EXAMPLE = EXAMPLES / "memcached"
LIMIT = 2**20


def stats(server, group: str = "") -> dict[str, str]:
    said = server.converse(f"stats {group}\r\n".encode()).decode()
    return dict(re.findall(r"STAT (\S+) (.*?)\r\n", said))


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with run_server(
        EXAMPLE / "memcached.py", tmp_path_factory.mktemp("memcached"), "--workers", "2"
    ) as running:
        yield running


@pytest.fixture
def store(tmp_path, monkeypatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(str(EXAMPLE))
    yield from importlib.import_module("lmdb_store").opened(str(tmp_path), LIMIT)


def test_the_readme_lists_every_command(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(EXAMPLE))
    monkeypatch.setenv("MEMCACHED_DIR", str(tmp_path))
    app = importlib.import_module("memcached").app
    table = (EXAMPLE / "README.md").read_text().partition("| commands | |")[2].partition("\n\n")[0]
    listed = {
        name for row in table.splitlines()[2:] for name in re.findall(r"`(\w+)`", row.split("|")[1])
    }
    served = {name.decode() for name in app.freeze().table}
    assert listed == served - {"set before log-in"}


def test_what_is_used_stays_although_it_was_stored_first(store):
    for number in range(500):
        store.update(b"hot:%d" % number, lambda _: Item(b"x" * 100))
    for number in range(20_000):
        store.fetch([b"hot:%d" % (number % 500)], 1_900_000_000)
        store.update(b"cold:%d" % number, lambda _: Item(b"x" * 100))
    kept = store.read([b"hot:%d" % number for number in range(500)])
    assert sum(item is not None for item in kept) > 480
    found = store.statistics()
    assert found["bytes"] <= LIMIT
    assert found["evictions"] == 20_500 - found["curr_items"]


def test_what_is_used_no_more_makes_room_in_the_end(store):
    for number in range(500):
        store.update(b"old:%d" % number, lambda _: Item(b"x" * 100))
        for _ in range(20):
            store.fetch([b"old:%d" % number], 1_900_000_000)
    for number in range(60_000):
        key = b"new:%d" % (number % 6000)
        if store.fetch([key], 1_900_000_000) == [None]:
            store.update(key, lambda _: Item(b"x" * 100))
    kept = store.read([b"old:%d" % number for number in range(500)])
    assert sum(item is not None for item in kept) < 100


def test_slots_of_deleted_items_are_used_again(store):
    for round_ in range(3):
        for number in range(300):
            store.update(b"%d:%d" % (round_, number), lambda _: Item(b"x"))
        for number in range(300):
            store.update(b"%d:%d" % (round_, number), lambda _: None)
    with store._env.begin() as txn:
        totals = store._tables.totals(txn)
    assert (totals.slots, totals.items, totals.size_bytes) == (300, 0, 0)


def test_a_lower_limit_is_reached_by_the_next_updates(store):
    for number in range(5000):
        store.update(b"k:%d" % number, lambda _: Item(b"x" * 50))
    assert store.limit_memory(LIMIT // 2)
    assert not store.limit_memory(LIMIT * 2)
    for number in range(100):
        store.update(b"more:%d" % number, lambda _: Item(b"x" * 50))
    assert store.statistics()["bytes"] <= LIMIT // 2


def test_figures_are_those_of_all_workers(server):
    server.converse(b"flush_all\r\nstats reset\r\n")
    for number in range(40):  # connections are spread over the workers
        server.converse(b"set k%d 0 0 1\r\nx\r\nget k%d none\r\n" % (number, number))
    found = stats(server)
    names = ("cmd_set", "cmd_get", "get_hits", "get_misses", "curr_items", "threads")
    assert [int(found[name]) for name in names] == [40, 80, 40, 40, 40, 2]
    assert int(found["pid"]) == server.process.pid
    assert int(found["uptime"]) >= 0
    with server.connect() as kept:
        kept.send(b"mn\r\n")
        assert kept.line() == "MN"
        assert int(stats(server)["curr_connections"]) >= 2
    assert found["version"] == "1.6.45"
    shown = stats(server, "settings")
    assert shown["item_size_max"] == "1048576"
    assert (shown["tcpport"], shown["inter"]) == (str(server.port), "127.0.0.1")


def test_all_items_are_listed(server):
    server.converse(b"flush_all\r\n")
    server.converse(b"".join(b"set key/%d 7 0 2\r\nab\r\n" % number for number in range(1200)))
    server.converse(b"ms IA== 1 b\r\nx\r\n")  # the key is a blank
    lines = server.converse(b"lru_crawler metadump all\r\n").decode().splitlines()
    assert (lines[0], lines[-1], len(lines)) == ("OK", "END", 1203)
    assert re.fullmatch(
        r"key=key%2F0 exp=-1 la=\d+ cas=\d+ fetch=no cls=1 size=7 flags=7 ", lines[2]
    )
    commands = server.converse(b"lru_crawler mgdump hash\r\n")
    assert commands.startswith(b"OK\r\nmg IA== b\r\nmg key/0\r\n")
    assert commands.endswith(b"\r\nEN\r\n")
    assert (
        server.converse(commands.replace(b"OK\r\n", b"").replace(b"EN\r\n", b"")).count(b"HD\r\n")
        == 1201
    )
    assert server.converse(b"stats cachedump 1 2\r\n").count(b"ITEM ") == 2


def test_counts_by_prefix_are_those_of_all_workers(server):
    assert server.converse(b"stats detail on\r\n") == b"OK\r\n"
    for _ in range(10):
        server.converse(b"set user:1 0 0 1\r\nx\r\nget user:1 user:2\r\ndelete user:1\r\n")
    assert server.converse(b"stats detail dump\r\nstats detail off\r\n") == (
        b"PREFIX user get 20 hit 10 set 10 del 10\r\nEND\r\nOK\r\n"
    )
    assert stats(server, "settings")["detail_enabled"] == "no"


def test_a_reload_keeps_the_items_and_a_stop_deletes_them(tmp_path):
    with run_server(EXAMPLE / "memcached.py", tmp_path, "--workers", "2") as server:
        assert server.converse(b"set a 0 0 1\r\nx\r\n") == b"STORED\r\n"
        assert server.order("RELOAD").startswith("generation 2")
        assert server.converse(b"get a\r\n") == b"VALUE a 0 1\r\nx\r\nEND\r\n"
        (directory,) = Path("/dev/shm").glob(f"memcached-server-{server.process.pid}-*")
    assert not directory.exists()
