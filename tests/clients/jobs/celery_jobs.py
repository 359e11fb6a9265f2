import os

from celery import Celery

from tests.clients.jobs.attempts import tried

app = Celery("jobs", broker=os.environ["REDIS_URL"], backend=os.environ["REDIS_URL"])
app.conf.broker_connection_retry_on_startup = True


@app.task
def add(x: int, y: int) -> int:
    return x + y


@app.task(bind=True)
def fail_twice(self, name: str) -> str:
    number = tried(name)
    if number < 3:
        raise self.retry(countdown=0)
    return f"done at attempt {number}"


@app.task
def fail() -> None:
    raise ValueError("it always fails")
