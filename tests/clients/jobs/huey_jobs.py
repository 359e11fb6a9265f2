import os

from huey import RedisHuey

from tests.clients.jobs.attempts import tried

huey = RedisHuey("jobs", url=os.environ["REDIS_URL"])


@huey.task()
def add(x: int, y: int) -> int:
    return x + y


@huey.task(retries=2)
def fail_twice(name: str) -> str:
    number = tried(name)
    if number < 3:
        raise ValueError(f"attempt {number}")
    return f"done at attempt {number}"


@huey.task()
def fail() -> None:
    raise ValueError("it always fails")
