"""Job queues that keep their jobs in Redis, with the Redis example, and a worker in a process of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests.servers import EXAMPLES, ROOT, TIMEOUT, run_server

REDIS = EXAMPLES / "redis" / "redis_server.py"


@pytest.fixture(scope="module")
def server_url(tmp_path_factory):
    with run_server(REDIS, tmp_path_factory.mktemp("redis"), "--workers", "2:6") as server:
        yield f"redis://{server.address}/0"


@pytest.fixture
def url(server_url, monkeypatch):
    """Give the address of an empty server, for this process and for workers."""
    monkeypatch.setenv("REDIS_URL", server_url)
    with redis.Redis.from_url(server_url) as connection:
        connection.flushall()
    yield server_url
    for name in [name for name in sys.modules if name.startswith("tests.clients.jobs.")]:
        del sys.modules[name]  # its address is that of this server


@contextlib.contextmanager
def worker(directory: Path, *command: str) -> Iterator[None]:
    """Run a queue's worker, a module of Python, until the block ends; show what it said if that fails."""
    log = directory / "worker.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            start_new_session=True,
        )
    try:
        yield
        process.terminate()
        process.wait(TIMEOUT)
    except BaseException:
        print(log.read_text(errors="replace"))
        raise
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_rq_runs_retries_and_keeps_failed_jobs(url, tmp_path):
    from rq import Queue, Retry
    from rq.job import Job, JobStatus
    from rq.results import Result

    from tests.clients.jobs import rq_jobs

    def result_of(job: Job) -> Result:
        result = job.latest_result(timeout=int(TIMEOUT))
        assert result
        return result

    with redis.Redis.from_url(url) as connection:
        queue = Queue(connection=connection)
        added = queue.enqueue(rq_jobs.add, 2, 3)
        retried = queue.enqueue(rq_jobs.fail_twice, "rq", retry=Retry(max=2))
        failed = queue.enqueue(rq_jobs.fail)
        last = queue.enqueue(rq_jobs.add, 4, 5, depends_on=[added, retried])
        with worker(tmp_path, "rq.cli", "worker", "--url", url, "default"):
            assert result_of(last).return_value == 9
            late = queue.enqueue(rq_jobs.add, 6, 7)  # the worker waits for it
            assert result_of(late).return_value == 13

        assert added.return_value() == 5
        assert retried.return_value() == "done at attempt 3"
        assert failed.get_status() == JobStatus.FAILED
        assert queue.failed_job_registry.get_job_ids() == [failed.id]
        assert "it always fails" in str(result_of(failed).exc_string)


def test_celery_runs_retries_and_returns_results(url, tmp_path):
    from celery import chain, group

    from tests.clients.jobs.celery_jobs import add, app, fail, fail_twice

    try:
        with worker(
            tmp_path, "celery", "-A", "tests.clients.jobs.celery_jobs", "worker", "--pool", "solo"
        ):
            assert add.delay(2, 3).get(timeout=TIMEOUT) == 5
            assert fail_twice.delay("celery").get(timeout=TIMEOUT) == "done at attempt 3"
            with pytest.raises(ValueError, match="it always fails"):
                fail.delay().get(timeout=TIMEOUT)
            assert chain(add.s(1, 2), add.s(3)).delay().get(timeout=TIMEOUT) == 6
            summed = group(add.s(1, 1), add.s(2, 2)).delay()
            assert summed.get(timeout=TIMEOUT) == [2, 4]
            assert app.control.ping(timeout=1, limit=1)
    finally:
        app.close()


def test_huey_runs_retries_and_returns_results(url, tmp_path):
    from huey.exceptions import TaskException

    from tests.clients.jobs.huey_jobs import add, fail, fail_twice

    with worker(
        tmp_path, "huey.bin.huey_consumer", "tests.clients.jobs.huey_jobs.huey", "-n", "-w", "1"
    ):
        assert add(2, 3).get(blocking=True, timeout=TIMEOUT) == 5
        assert add.schedule((4, 5), delay=0).get(blocking=True, timeout=TIMEOUT) == 9
        with pytest.raises(TaskException, match="it always fails"):
            fail().get(blocking=True, timeout=TIMEOUT)
        retried = fail_twice("huey")
        while True:  # a result of a failed attempt is one too
            with contextlib.suppress(TaskException):
                if said := retried.get(blocking=True, timeout=TIMEOUT):
                    break
            retried.reset()  # it keeps what it has read
        assert said == "done at attempt 3"


def test_dramatiq_runs_retries_and_returns_results(url, tmp_path):
    from dramatiq.results import ResultFailure

    from tests.clients.jobs.dramatiq_jobs import add, broker, fail, fail_twice

    timeout_ms = int(TIMEOUT * 1000)
    words = ("tests.clients.jobs.dramatiq_jobs", "--processes", "1", "--threads", "2")
    try:
        with worker(tmp_path, "dramatiq", *words):
            assert add.send(2, 3).get_result(block=True, timeout=timeout_ms) == 5
            with pytest.raises(ResultFailure, match="it always fails"):
                fail.send().get_result(block=True, timeout=timeout_ms)
            said = fail_twice.send("dramatiq").get_result(block=True, timeout=timeout_ms)
            assert said == "done at attempt 3"
    finally:
        broker.close()
