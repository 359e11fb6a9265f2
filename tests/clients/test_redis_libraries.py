"""Libraries that keep their data in Redis, with the Redis example: rate limits, Django's cache, locks."""

from __future__ import annotations

import threading

import pytest
import redis

from tests.servers import EXAMPLES, TIMEOUT, run_server

REDIS = EXAMPLES / "redis" / "redis_server.py"


@pytest.fixture(scope="module")
def server_url(tmp_path_factory):
    with run_server(REDIS, tmp_path_factory.mktemp("redis"), "--workers", "2:6") as server:
        yield f"redis://{server.address}/0"


@pytest.fixture
def url(server_url):
    """Give the address of an empty server."""
    with redis.Redis.from_url(server_url) as connection:
        connection.flushall()
    return server_url


@pytest.mark.parametrize("strategy", ["fixed-window", "moving-window", "sliding-window-counter"])
def test_flask_limiter_counts_in_the_server(url, strategy):
    from flask import Flask
    from flask_limiter import Limiter
    from flask_limiter.util import get_remote_address

    statuses = []
    for _ in range(2):  # two apps share the count
        app = Flask("limited")
        limiter = Limiter(get_remote_address, app=app, storage_uri=url, strategy=strategy)

        @app.get("/")
        @limiter.limit("5 per hour")
        def index() -> str:
            return "fine"

        with app.test_client() as client:
            statuses += [client.get("/").status_code for _ in range(4)]
    assert statuses == [200] * 5 + [429] * 3


def test_django_keeps_its_cache_in_the_server(url):
    from django.core.cache.backends.redis import RedisCache

    cache = RedisCache(url, {"KEY_PREFIX": "site", "TIMEOUT": 300})
    try:
        assert cache.add("a", {"any": ["value"]})
        assert not cache.add("a", "other")
        assert cache.get("a") == {"any": ["value"]}
        cache.set_many({"b": 1, "c": "text"}, timeout=60)
        assert cache.get_many(["a", "b", "none"]) == {"a": {"any": ["value"]}, "b": 1}
        assert cache.incr("b", 5) == 6
        assert cache.touch("b", 10)
        assert cache.get_or_set("d", lambda: "made") == "made"
        assert cache.has_key("d")
        assert cache.delete("d")
        cache.set("gone", 1, timeout=0)
        assert cache.get("gone") is None
        cache.clear()
        assert cache.get("c") is None
    finally:
        for pool in cache._cache._pools.values():  # Django keeps them until the process ends
            pool.disconnect()


def test_lock_of_redis_py_lets_one_holder_in(url):
    inside = []
    most = []

    def enter() -> None:
        with redis.Redis.from_url(url) as connection:
            for _ in range(5):
                with connection.lock("lock", timeout=TIMEOUT, sleep=0.001):
                    inside.append(1)
                    most.append(len(inside))
                    inside.pop()

    threads = [threading.Thread(target=enter) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 15
    with redis.Redis.from_url(url) as connection:
        held = connection.lock("lock", timeout=TIMEOUT)
        assert held.acquire()
        assert not connection.lock("lock").acquire(blocking=False)
        assert held.extend(10)
        assert held.reacquire()
        held.release()
        with pytest.raises(redis.exceptions.LockError):
            held.release()
