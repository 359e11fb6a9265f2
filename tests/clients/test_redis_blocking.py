"""Commands of the Redis example that wait: BLPOP and its kin."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.clients.harness import TIMEOUT, Killer, redis_client, redis_server
from tests.clients.redis_twin import Twins, split
from tests.servers import EXAMPLES, run_server

REDIS = EXAMPLES / "redis" / "redis_server.py"
NEVER = 10 * TIMEOUT  # seconds; not 0, or a request that is never woken outlives the test


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with run_server(REDIS, tmp_path_factory.mktemp("redis"), "--workers", "4") as running:
        yield running


@pytest.fixture
def client(server):
    with redis_client(server) as r:
        r.flushall()
        yield r


@pytest.fixture(scope="module")
def real_redis(tmp_path_factory):
    with redis_server(tmp_path_factory.mktemp("real")) as number:
        yield number


DIALOGUE = """
    RPUSH l a b c d e f|BLPOP none l 0|BRPOP l none 0|BLMPOP 0 2 none l LEFT|BLMPOP 0 1 l RIGHT COUNT 2
    LRANGE l 0 -1
    BLMOVE l m LEFT RIGHT 0|RPUSH l a b|BRPOPLPUSH l m 0|BLMOVE l l LEFT RIGHT 0|LRANGE m 0 -1|EXISTS l
    ZADD z 1 a 2 b 3 c 4 d|BZPOPMIN none z 0|BZPOPMAX z 0|BZMPOP 0 2 none z MIN|BZMPOP 0 1 z MAX COUNT 5
    EXISTS z
    SET s text|BLPOP s 0|BLPOP none s 0|BLPOP l s 0|RPUSH l a|BLPOP l s 0|BLMOVE s m LEFT LEFT 0
    BZPOPMIN s 0
    BLMPOP 0 1 s LEFT|BZMPOP 0 1 s MIN|RPUSH l a|BLMOVE l s LEFT LEFT 0|BZPOPMIN l 0|BLPOP z 0.01
    BLPOP none -1|BLPOP none x|BLPOP none nan|BLPOP none inf|BLPOP none|BLMOVE l m UP LEFT 0
    BLMOVE l m LEFT LEFT x
    BRPOPLPUSH l m -1|BLMPOP x 1 l LEFT|BLMPOP 0 0 l LEFT|BLMPOP 0 1 l UP|BLMPOP 0 1 l LEFT COUNT 0
    BLMPOP 0 2 l LEFT
    BZPOPMAX none -1|BZMPOP 0 x l MIN|BZMPOP 0 1 l UP
    BLPOP none other 0.001|BRPOPLPUSH none m 0.001|BLMOVE none m LEFT LEFT 0.001|BZPOPMIN none 0.001
    BLMPOP 0.001 1 none LEFT|BZMPOP 0.001 1 none MIN
    MULTI|BLPOP none 0|BRPOP none 0|BLMOVE none m LEFT LEFT 0|BRPOPLPUSH none m 0|BLMPOP 0 1 none LEFT
    BZPOPMIN none 0
    BZMPOP 0 1 none MIN|RPUSH l x|BRPOP l 0|EXEC
"""


@pytest.mark.parametrize("version", [2, 3])
def test_what_does_not_wait_is_answered_as_by_redis(server, real_redis, version):
    with contextlib.ExitStack() as stack:
        twins = Twins((real_redis, server.port), stack, version)
        for shape in DIALOGUE.replace("\n", "|").split("|"):
            if words := [word.encode() for word in split(shape)]:
                twins.ask([words])


@contextlib.contextmanager
def asking(server, *commands):
    """Have clients send commands that wait; give their replies to come, in that order."""
    with ThreadPoolExecutor(len(commands)) as pool:

        def ask(words):
            with redis_client(server, socket_timeout=NEVER) as r:
                return r.execute_command(*words)

        yield [pool.submit(ask, words.split()) for words in commands]


WAKING = {
    "RPUSH k v": "",
    "LPUSH k v": "",
    "RENAME source k": "RPUSH source v",
    "RENAMENX source k": "RPUSH source v",
    "COPY source k": "RPUSH source v",
    "COPY source k REPLACE": "RPUSH source v",
    "SORT source ALPHA STORE k": "RPUSH source v",
    "LMOVE source k LEFT LEFT": "RPUSH source v",
    "RPOPLPUSH source k": "RPUSH source v",
    "SWAPDB 0 7": "SELECT 7|RPUSH k v|SELECT 0",
    "MOVE k 0": "SELECT 7|RPUSH k v",
    "COPY source k DB 0": "SELECT 7|RPUSH source v",
    "BLMOVE source k LEFT LEFT 0": "RPUSH source v",
}


@pytest.mark.parametrize("command", WAKING)
def test_whatever_makes_a_list_wakes_who_waits_for_it(server, client, command):
    with (
        redis_client(server, single_connection_client=True) as other,
        asking(server, f"BLPOP none k {NEVER}", f"BLPOP k {NEVER}") as replies,
    ):
        for words in filter(None, WAKING[command].split("|")):
            other.execute_command(*words.split())
        other.execute_command(*command.split())
        client.rpush("k", "second")
        got = sorted(tuple(reply.result(TIMEOUT)) for reply in replies)
    assert got == [("k", "second"), ("k", "v")]


@pytest.mark.parametrize(
    "command",
    ["ZADD k 1 v", "ZINCRBY k 1 v", "ZUNIONSTORE k 1 source", "ZRANGESTORE k source 0 -1"],
)
def test_whatever_makes_a_sorted_set_wakes_who_waits_for_it(server, client, command):
    client.zadd("source", {"v": 1})
    with asking(server, f"BZPOPMIN k {NEVER}", f"BZMPOP {NEVER} 1 k MAX") as replies:
        client.execute_command(*command.split())
        client.zadd("k", {"w": 2})
        first, second = (reply.result(TIMEOUT) for reply in replies)
    assert {(first[1], float(first[2])), (second[1][0][0], float(second[1][0][1]))} == {
        ("v", 1.0),
        ("w", 2.0),
    }


def test_each_element_of_one_push_wakes_one_client(server, client):
    with asking(server, *[f"BRPOP k {NEVER}"] * 6) as replies:
        client.rpush("k", *range(4))
        with client.pipeline() as pipe:
            pipe.rpush("k", 4).rpush("k", 5).execute()
        assert sorted(reply.result(TIMEOUT)[1] for reply in replies) == list("012345")
    assert not client.exists("k")


def test_elements_travel_along_lists_that_clients_wait_to_move(server, client):
    moves = [f"BLMOVE l{number} l{number + 1} LEFT RIGHT {NEVER}" for number in range(6)]
    with asking(server, *moves) as replies:
        client.rpush("l0", "x")
        assert [reply.result(TIMEOUT) for reply in replies] == ["x"] * 6
    assert client.lrange("l6", 0, -1) == ["x"]


def test_an_element_that_a_client_cannot_move_goes_to_the_next(server, client):
    client.set("text", "x")
    with asking(server, *[f"BRPOPLPUSH k text {NEVER}"] * 2, f"BRPOP k {NEVER}") as replies:
        while client.info("clients")["blocked_clients"] < 3:
            pass
        client.lpush("k", "v")
        assert replies[2].result(TIMEOUT)[1] == "v"
        client.lpush("k", "w", "w")  # for those that the first one did not wake
        for reply in replies[:2]:
            assert "wrong kind of value" in str(reply.exception(TIMEOUT))


def test_a_queue_as_job_servers_use_it(server, client):
    """Producers push jobs, consumers move them to a list of their own, work, and remove them."""
    jobs = [f"job{number}" for number in range(300)]
    done: list[str] = []

    def consume(number: int) -> None:
        with redis_client(server) as r:
            while (job := r.blmove("jobs", f"taken{number}", 5, "LEFT", "RIGHT")) != "end":
                done.append(job)
                assert r.lrem(f"taken{number}", 1, job) == 1

    with ThreadPoolExecutor(8) as pool:
        consumers = [pool.submit(consume, number) for number in range(8)]
        with redis_client(server) as other:
            for job in jobs:
                (client if len(job) % 2 else other).rpush("jobs", job)
        client.rpush("jobs", *["end"] * 8)
        for one in consumers:
            one.result(TIMEOUT)
    assert sorted(done) == sorted(jobs)


class Storm:
    """Clients that push and pop items while workers are killed.

    Args:
        server: The server.
        items: How many are pushed.
        clients: How many push, and how many pop.

    Attributes:
        popped: How often each item was popped.
        unsure: The items that may have been pushed without an acknowledgement.
        lost: How many pops have had no reply.
    """

    def __init__(self, server, items: int, clients: int) -> None:
        self.popped: Counter[str] = Counter()
        self.unsure: set[str] = set()
        self.lost = 0
        self._server, self._items, self._clients = server, items, clients
        self._pushed = threading.Event()
        self._lock = threading.Lock()

    def run(self, kills: int) -> None:
        """Push and pop all items."""
        numbers = range(self._clients)
        with Killer(self._server, kills), ThreadPoolExecutor(2 * self._clients) as pool:
            consumers = [pool.submit(self._consume, number) for number in numbers]
            for one in [pool.submit(self._produce, number) for number in numbers]:
                one.result()
            self._pushed.set()
            for one in consumers:
                one.result()

    def check(self) -> None:
        """Check that each item was popped once, or may be in the hands of a killed worker."""
        assert not [item for item, count in self.popped.items() if count > 1]
        missing = set(map(str, range(self._items))) - self.popped.keys() - self.unsure
        assert len(missing) <= self.lost
        assert len(self.popped) > self._items // 2

    def _client(self):
        return redis_client(self._server, retry=Retry(NoBackoff(), 0))

    def _produce(self, number: int) -> None:
        with self._client() as r:
            for item in range(number, self._items, self._clients):
                while not self._push(r, item):
                    pass

    def _push(self, r, item: int) -> bool:
        """Push an item; return False if that was refused, for workers have died of the command."""
        try:
            r.lpush(f"queue{item % 3}", item)
        except redis.ResponseError:
            return False
        except redis.ConnectionError:
            with self._lock:
                self.unsure.add(str(item))
        return True

    def _consume(self, number: int) -> None:
        names = [f"queue{(number + turn) % 3}" for turn in range(3)]
        found: Counter[str] = Counter()
        lost = 0
        with self._client() as r:
            pop = r.brpop if number % 2 else r.blpop
            is_last = False
            while True:
                try:
                    got = pop(names, 0.5)
                except redis.ResponseError:  # refused, as in ``_push``
                    continue
                except redis.ConnectionError:
                    lost += 1
                    continue
                if got is None and is_last:
                    break
                is_last = got is None and self._pushed.is_set()
                if got is not None:
                    found[got[1]] += 1
        with self._lock:
            self.popped += found
            self.lost += lost


def test_each_item_is_popped_once_while_workers_are_killed(tmp_path):
    with run_server(REDIS, tmp_path, "--workers", "4", "--poison-pause", "0.1") as server:
        storm = Storm(server, 2000, 8)
        storm.run(kills=5)
        storm.check()
        assert server.converse(b"EXISTS queue0 queue1 queue2\r\n") == b":0\r\n"
