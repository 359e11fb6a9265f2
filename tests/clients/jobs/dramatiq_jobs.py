import os

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from tests.clients.jobs.attempts import tried

broker = RedisBroker(url=os.environ["REDIS_URL"])
broker.add_middleware(Results(backend=RedisBackend(url=os.environ["REDIS_URL"])))
dramatiq.set_broker(broker)


@dramatiq.actor(store_results=True)
def add(x: int, y: int) -> int:
    return x + y


@dramatiq.actor(store_results=True, min_backoff=1, max_backoff=1)
def fail_twice(name: str) -> str:
    number = tried(name)
    if number < 3:
        raise ValueError(f"attempt {number}")
    return f"done at attempt {number}"


@dramatiq.actor(store_results=True, max_retries=0)
def fail() -> None:
    raise ValueError("it always fails")
