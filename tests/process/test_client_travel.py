"""What travels with a call, from the client to the server and to the calls that the handler makes there."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import threading
import time
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from linepool import App, AsyncClient, Client, ClientError, RequestTimeout, ServerError
from linepool.client import CallTimeout, ConnectionFailed, deadline, request_id
from linepool.client.deadlines import deadline_of
from linepool.testing import serve


def left() -> float:
    """Return how much time is left for calls of this handler."""
    return deadline_of(None) - monotonic()


def forward(address: str) -> float:
    with Client(address) as client:
        return client.call(left)


def forward_by_asyncio(address: str) -> float:
    async def call() -> float:
        async with AsyncClient(address) as client:
            return await client.call(left)

    return asyncio.run(call())


def forward_by_thread(address: str) -> float:
    found: list[float] = []
    thread = threading.Thread(target=lambda: found.append(forward(address)))
    thread.start()
    thread.join()
    return found[0]


def fail() -> None:
    raise RuntimeError


def crash() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def hang() -> None:
    time.sleep(60)


def cling() -> None:
    while True:
        with contextlib.suppress(RequestTimeout):
            time.sleep(60)


def fail_there(address: str) -> None:
    with Client(address) as client:
        client.call(fail)


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    return tmp_path_factory.mktemp("travel") / "log"


@pytest.fixture(scope="module")
def server(log):
    app = App()
    served: tuple[Any, ...] = (left, forward, forward_by_asyncio, forward_by_thread)
    for function in (*served, fail, crash, fail_there):
        app.handler(function)
    for function in (hang, cling):
        app.handler(timeout=0.1)(function)
    options: dict[str, Any] = {"kill_grace": 0.1, "access_log_format": "{command} {id}"}
    options |= {"log_file": str(log), "access_log": f"{log}.access"}
    with serve(app, workers=2, request_timeout=25, **options) as server:
        yield server


@pytest.fixture
def client(server):
    with Client(server.address, timeout=None) as client:
        yield client


def test_a_handlers_own_limit_bounds_its_calls(client):
    assert 0 < client.call(left) <= 25


@pytest.mark.parametrize("function", [forward, forward_by_asyncio])
def test_a_deadline_travels_through_a_handler_to_the_next_server(server, client, function):
    assert 0 < client.call(function, server.address) <= 25
    with deadline(15):
        assert 0 < client.call(function, server.address) <= 15
    assert 0 < client.with_options(timeout=10).call(function, server.address) <= 10
    with deadline(15):
        (found,) = client.stream(function, server.address)
        assert 0 < found <= 15


def test_calls_of_other_threads_are_not_bound_by_the_request(server, client):
    assert 15 < client.with_options(timeout=15).call(forward_by_thread, server.address) <= 25


def test_a_deadline_bounds_calls_of_both_clients_and_is_only_shortened(server, client):
    async def work():
        async with AsyncClient(server.address) as other:
            with deadline(20):
                tasks = [asyncio.create_task(other.call(left)) for _ in range(3)]
            return await asyncio.gather(*tasks, other.call(left))

    *bound, free = asyncio.run(work())
    assert all(0 < one <= 20 for one in bound)
    assert 20 < free <= 25
    with deadline(20), deadline(1_000):
        assert 0 < client.call(left) <= 20
        with deadline(10):
            assert 0 < client.call(left) <= 10
        assert 10 < client.call(left) <= 20


def test_without_time_left_nothing_is_sent(client):
    with deadline(0):
        for call in (
            lambda: client.call(left),
            lambda: list(client.stream(left)),
            lambda: client.with_options(idempotent=True).call(left),
        ):
            with pytest.raises(CallTimeout, match="no time is left") as error:
                call()
            assert not error.value.was_sent
        with pytest.raises(CallTimeout), client.pipeline() as pipeline:
            pipeline.call(left)
    with pytest.raises(ValueError, match="NaN"), deadline(float("nan")):
        pass


@pytest.mark.parametrize(
    ("function", "kind", "line"),
    [
        (fail, ServerError, r"handler failed id={} command=fail .* fault=\w{{4}}"),
        (hang, CallTimeout, "request overdue command=.* id={}$"),
        (cling, ServerError, "worker killed .* id={}$"),
        (crash, ConnectionFailed, "worker died .* id={}$"),
    ],
)
def test_an_errors_id_is_in_the_servers_log(log, client, function, kind, line):
    with pytest.raises(kind) as error:
        client.call(function)
    given = error.value.id
    assert re.fullmatch("[0-9a-f]{12}", given)
    until_logged(log, line.format(given))
    if function in (fail, crash):  # the other texts say what is of use to the client's user
        assert given in str(error.value)


def until_logged(log, pattern):
    """Wait until the server's log, or its access log, has a line: the client may be told before."""
    while not re.search(f"(?m){pattern}", log.read_text() + Path(f"{log}.access").read_text()):
        time.sleep(0.01)


def test_a_given_id_is_that_of_the_request_in_replies_and_logs(log, client):
    with request_id("job-17"), pytest.raises(ClientError) as refused:
        client.call("forward")
    assert refused.value.id == "job-17"
    until_logged(log, "^FORWARD job-17$")
    with request_id("job-18"):
        assert client.call(left)
        assert list(client.stream(left))
        with client.pipeline() as pipeline:
            pending = pipeline.call(fail)
    with pytest.raises(ServerError) as failed:
        pending.result()
    assert failed.value.id == "job-18"
    until_logged(log, "^LEFT job-18$")
    with pytest.raises(ValueError, match="a request's id must be"), request_id("a b"):
        pass


def test_calls_of_a_handler_have_the_id_of_its_request(server, log, client):
    with request_id("outer-1"), pytest.raises(ServerError) as error:
        client.call(fail_there, server.address)
    assert error.value.id == "outer-1"
    until_logged(log, "handler failed id=outer-1 command=fail ")
    until_logged(log, "^FAIL_THERE outer-1$")
