"""Keyspace notifications of the Redis example: the same as those of a real Redis."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path

import pytest
import redis

from tests.clients.harness import TIMEOUT, redis_client, redis_server
from tests.clients.redis_twin import MORE_SHAPES, SHAPES, Reader, commands, packed
from tests.clients.streams_twin import commands as stream_commands
from tests.servers import EXAMPLES, run_server

REDIS = EXAMPLES / "redis" / "redis_server.py"
WANTED = "KEAn"
_CLOCK = {b"PX", b"PXAT", b"PSETEX", b"RESET"}
"""Words of commands whose keys may have expired in one of the servers only, or that choose RESP 2."""


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("redis")


@pytest.fixture(scope="module")
def server(directory):
    keys = str(directory / "keys")
    with run_server(REDIS, directory, "--workers", "3", REDIS_DIR=keys) as running:
        yield running


@pytest.fixture
def notify(directory: Path, monkeypatch):
    """Give a function that sets ``notify-keyspace-events``."""
    monkeypatch.syspath_prepend(str(EXAMPLES / "redis"))
    from key_store import Store
    from settings import set_settings

    store = Store(str(directory / "keys"), 1024 * 2**20)

    def notify(letters: str) -> None:
        with store.db.write() as t:
            set_settings(t, {"notify-keyspace-events": letters})
        store.db.end()

    notify("")
    yield notify
    store.close()


class Observed:
    """A connection that sends commands to a server, and one that is told what they have done."""

    def __init__(self, port: int, stack: contextlib.ExitStack) -> None:
        names = ("commands", "subscriber", "publisher")
        address = ("127.0.0.1", port)
        self._socks = {
            name: stack.enter_context(socket.create_connection(address, TIMEOUT)) for name in names
        }
        self._readers = {
            name: Reader(stack.enter_context(sock.makefile("rb")))
            for name, sock in self._socks.items()
        }
        self._ask("commands", b"FLUSHALL")
        self._ask("subscriber", b"PSUBSCRIBE", b"__key*__:*")

    def _ask(self, name: str, *words: bytes):
        self._socks[name].sendall(packed(list(words)))
        return self._readers[name].reply()

    def told(self, words: list[bytes]) -> list[tuple[bytes, bytes]]:
        """Send a command; return the channels and messages of its notifications."""
        self._ask("commands", *words)
        self._ask("publisher", b"PUBLISH", b"__key_end__:", b"")
        found = []
        while (message := self._readers["subscriber"].reply()[1])[2][1] != b"__key_end__:":
            found.append((message[2][1], message[3][1]))
        return found


@pytest.mark.parametrize(
    "sent",
    [commands(0, 800, SHAPES), commands(1, 800, MORE_SHAPES), stream_commands(2, 800)],
    ids=["data", "more data", "streams"],
)
def test_notifications_of_random_commands_equal_those_of_redis(server, notify, tmp_path, sent):
    notify(WANTED)
    with redis_server(tmp_path) as real, contextlib.ExitStack() as stack:
        with redis.Redis(port=real) as r:
            r.config_set("notify-keyspace-events", WANTED)
        theirs, ours = Observed(real, stack), Observed(server.port, stack)
        for words in sent:
            if not _CLOCK.intersection(words):
                assert ours.told(words) == theirs.told(words), words


def test_subscribers_in_any_worker_are_told_only_what_the_setting_wants(server, notify):
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(redis_client(server, protocol=3)) for _ in range(6)]
        subscribers = [stack.enter_context(one.pubsub()) for one in clients]
        for one in subscribers:
            one.psubscribe("__key*")
            assert one.get_message(timeout=TIMEOUT)["type"] == "psubscribe"
        r = clients[0]
        r.flushall()
        r.set("silent", "1")
        notify("Kl")
        r.rpush("l", "a")
        r.set("other", "1")
        r.publish("__key", "end")
        for one in subscribers:
            message = one.get_message(timeout=TIMEOUT)
            assert (message["channel"], message["data"]) == ("__keyspace@0__:l", "rpush")
            assert one.get_message(timeout=TIMEOUT)["data"] == "end"


def test_a_command_that_meets_an_expired_key_tells_of_it(server, notify):
    with redis_client(server, protocol=3, db=5) as r, r.pubsub() as subscriber:
        subscriber.subscribe("__keyevent@5__:expired")
        assert subscriber.get_message(timeout=TIMEOUT)["type"] == "subscribe"
        notify("Ex")
        r.set("short", "x", px=1)
        while r.get("short"):
            pass
        assert subscriber.get_message(timeout=TIMEOUT)["data"] == "short"


def test_a_transaction_tells_what_it_has_done_and_a_refused_one_nothing(server, notify):
    notify("Eg$")
    with redis_client(server, protocol=3) as r, r.pubsub() as subscriber:
        r.flushall()
        subscriber.psubscribe("__keyevent*")
        assert subscriber.get_message(timeout=TIMEOUT)["type"] == "psubscribe"
        with r.pipeline() as pipe:
            pipe.watch("a")
            r.set("a", "1")
            pipe.multi()
            pipe.delete("a")
            with pytest.raises(redis.WatchError):
                pipe.execute()
            pipe.set("b", "1").rename("b", "c").execute()
        found = [subscriber.get_message(timeout=TIMEOUT) for _ in range(4)]
        assert [(one["channel"].partition(":")[2], one["data"]) for one in found] == [
            ("set", "a"),
            ("set", "b"),
            ("rename_from", "b"),
            ("rename_to", "c"),
        ]
