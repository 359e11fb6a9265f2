"""The tests of Redis and of redis-py, on Redis itself and on examples/redis.

Prints what passes on each, and why what passes on Redis fails on the example. ``SUITES`` names the suites
to run instead of all, such as ``unit/type/list tests/test_lock.py``; ``SUITES_OPTIONS`` has further options
of Redis' runner, such as ``--only NAME``.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import pytest

from tests.clients.harness import redis_server
from tests.servers import EXAMPLES, run_server
from tests.torture import suite_redis_py, suite_tcl
from tests.torture.suite_results import Compared, served_share, show
from tests.torture.suite_sources import redis_py_python, redis_py_source, redis_source

_REDIS = EXAMPLES / "redis" / "redis_server.py"
_LEAST_SHARE = 0.93  # a busy machine fails some tests that count on time
_LIKE_THE_SUITES_OWN = ("--notify-keyspace-events", "KEA", "--latency-monitor-threshold", "1")


@pytest.fixture
def example(tmp_path):
    @contextlib.contextmanager
    def start() -> Iterator[int]:
        with run_server(_REDIS, tmp_path, "--workers", "4") as server:
            yield server.port

    return start


@pytest.fixture
def real(tmp_path):
    @contextlib.contextmanager
    def start() -> Iterator[int]:
        with redis_server(tmp_path, *_LIKE_THE_SUITES_OWN) as port:
            yield port

    return start


def chosen(names: tuple[str, ...]) -> list[str]:
    """Return the suites that ``SUITES`` names, or all."""
    wanted = os.environ.get("SUITES", "").split()
    return [name for name in names if not wanted or name in wanted]


def compare(suites: list[str], run) -> None:
    """Run each suite on both servers; show what differs, and assert that enough passes."""
    compared = []
    for suite in suites:
        compared.append(run(suite))
        print(*compared[-1].row, flush=True)
    show(compared)
    assert served_share(compared) >= _LEAST_SHARE


def test_redis_own_tests_pass(real, example):
    source = redis_source()

    def run(unit: str) -> Compared:
        return Compared(
            unit, *(suite_tcl.run_unit(source, unit, start) for start in (real, example))
        )

    compare(chosen(suite_tcl.UNITS), run)


def test_redis_py_own_tests_pass(real, example):
    source, python = redis_py_source(), redis_py_python()

    def run(suite: str) -> Compared:
        outcomes = []
        for start in (real, example):
            with start() as port:
                outcomes.append(suite_redis_py.run_suite(python, source, suite, port))
        return Compared(suite, *outcomes)

    compare(chosen(suite_redis_py.SUITES), run)
