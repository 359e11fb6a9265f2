"""The client at a real server: values of all types, kills, threads, forks and cancelled tasks."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from decimal import Decimal
from typing import Any, assert_type

import attrs
import pytest

from linepool import App, AsyncClient, Client, ClientError, ServerError, UnknownCommand
from linepool.client import ConnectionFailed, UnexpectedReply
from linepool.testing import serve
from tests.torture.client_load import cancel_calls

DAY = date(2026, 1, 31)


@attrs.frozen
class Point:
    x: int
    day: date


def add(a: int, b: int = 0) -> int:
    return a + b


def nothing() -> None:
    pass


def text(value: str) -> str:
    return value


def photo(size: int) -> bytes:
    return b"\n\xff" * size


def names(*given: str) -> list[str]:
    return list(given)


def parts(value: str) -> tuple[str, bytes, int]:
    return value, value.encode(), len(value)


def distinct(values: list[int]) -> set[int]:
    return set(values)


def moved(point: Point, by: Decimal | None = None) -> Point:
    return Point(point.x + int(by or 1), point.day)


def points(n: int) -> Iterator[Point]:
    for x in range(n):
        yield Point(x, DAY)


def prices(amounts: dict[str, Decimal]) -> list[Decimal]:
    return list(amounts.values())


def days(by_name: dict[str, date]) -> dict[str, date]:
    return by_name


def owner(of: uuid.UUID) -> uuid.UUID | None:
    return of if of.int else None


def set_(value: str) -> str:
    return f"set {value}"


def flag(*, fast: bool = False) -> bool:
    return fast


def untyped(n):
    return [{"n": n}]


def crash() -> str:
    os.kill(os.getpid(), signal.SIGKILL)
    return "never"


def refuse(code: str) -> None:
    raise ClientError("not now", code=code, data={"again": 5})


def fail() -> None:
    raise RuntimeError("a secret")


def countdown(start: int, then_fail: bool = False) -> Iterator[int]:
    yield from range(start, 0, -1)
    if then_fail:
        raise RuntimeError("a secret")


def flood() -> Iterator[bytes]:
    while True:
        yield b"x" * 10_000


HANDLERS = (
    *(
        add,
        nothing,
        text,
        photo,
        names,
        parts,
        distinct,
        moved,
        points,
        prices,
        days,
        owner,
        set_,
        flag,
    ),
    *(untyped, crash, refuse, fail, countdown, flood),
)
ID = uuid.uuid4()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    app = App()
    for function in HANDLERS:
        app.handler(function)
    path = tmp_path_factory.mktemp("client") / "socket"
    with serve(app, workers=2, bind=["127.0.0.1:0", f"unix:{path}"]) as server:
        yield server


@pytest.fixture
def client(server):
    with Client(server.address) as client:
        yield client


def asynchronously(server, work, **options):
    """Run a coroutine function with a client for asyncio."""

    async def run():
        async with AsyncClient(server.address, **options) as client:
            found = await work(client)
        await asyncio.sleep(0)  # its sockets close
        return found

    return asyncio.run(run())


CALLS: list[tuple[Any, tuple[Any, ...], dict[str, Any], Any]] = [
    (add, (2, 3), {}, 5),
    (add, (2,), {"b": -3}, -1),
    (add, (), {"a": 10**30}, 10**30),
    (nothing, (), {}, None),
    (text, ("END\r\n\0 'é\" ",), {}, "END\r\n\0 'é\" "),
    (text, ("",), {}, ""),
    (photo, (30_000,), {}, b"\n\xff" * 30_000),
    (names, ("a", "b c"), {}, ["a", "b c"]),
    (names, (), {}, []),
    (parts, ("é",), {}, ("é", "é".encode(), 1)),
    (distinct, ([1, 1, 2],), {}, {1, 2}),
    (moved, (Point(1, DAY),), {"by": Decimal("2.5")}, Point(3, DAY)),
    (prices, ({"a": Decimal("0.10")},), {}, [Decimal("0.10")]),
    (days, ({"a": date(2026, 1, 31)},), {}, {"a": date(2026, 1, 31)}),
    (owner, (ID,), {}, ID),
    (owner, (uuid.UUID(int=0),), {}, None),
    (set_, ("x",), {}, "set x"),
    (flag, (), {"fast": True}, True),
    (untyped, ("x",), {}, [{"n": "x"}]),
]


@pytest.mark.parametrize(("function", "given", "named", "expected"), CALLS)
def test_a_call_of_a_function_returns_what_the_function_does(
    server, client, function, given, named, expected
):
    assert client.call(function, *given, **named) == expected
    assert asynchronously(server, lambda one: one.call(function, *given, **named)) == expected
    with client.pipeline() as pipeline:
        pending = [pipeline.call(function, *given, **named) for _ in range(3)]
    assert [one.result() for one in pending] == [expected] * 3


def test_types_are_those_of_the_function(client: Client) -> None:
    assert_type(client.call(add, 2, b=3), int)
    assert_type(client.call(moved, Point(1, DAY)), Point)
    assert_type(client.stream(points, 0), Iterator[Point])
    with client.pipeline() as pipeline:
        pending = pipeline.call(text, "x")
    assert_type(pending.result(), str)
    assert_type(client.with_options(timeout=5).call(names, "a"), list[str])


def test_a_command_is_called_by_its_name(client):
    assert client.call("add", 2, 3) == client.call("ADD", a=2, b=3) == 5
    assert client.call("points", 1) == [{"x": 0, "day": "2026-01-31"}]
    assert client.call("help")[0].startswith("ADD ")
    with pytest.raises(TypeError, match="by position, or all by name"):
        client.call("add", 2, b=3)


def test_an_iterator_is_returned_as_one_and_a_stream_yields(server, client):
    expected = [Point(x, DAY) for x in range(3)]
    assert next(client.call(points, 3)) == expected[0]
    assert list(client.stream(points, 3)) == expected
    assert list(client.stream("add", 2, 3)) == [5]

    async def streamed(client):
        return [point async for point in client.stream(points, 3)]

    assert asynchronously(server, streamed) == expected


def test_a_stream_that_is_left_early_closes_its_connection(server, client):
    for _ in range(3):
        stream = client.stream(flood)
        assert next(stream) == b"x" * 10_000
        stream.close()
        assert client.call(add, 1, 1) == 2

    async def leave(client):
        async with contextlib.aclosing(client.stream(flood)) as stream:
            async for data in stream:
                assert data == b"x" * 10_000
                break
        return await client.call(add, 1, 1)

    assert asynchronously(server, leave) == 2


def test_a_stream_that_fails_raises_after_its_values(client):
    got = []
    with pytest.raises(ServerError, match="internal error") as error:
        got.extend(client.stream(countdown, 2, then_fail=True))
    assert error.value.id is not None
    assert error.value.id in str(error.value)
    assert list(client.stream(countdown, 2)) == [2, 1]


def test_errors_have_the_types_and_the_facts_of_the_server(client):
    with pytest.raises(ClientError, match=r"^not now$") as refused:
        client.call(refuse, "LATER")
    assert (refused.value.code, refused.value.data) == ("LATER", {"again": 5})
    with pytest.raises(ServerError, match="internal error, id ") as failed:
        client.call(fail)
    assert str(failed.value.id) in str(failed.value)
    with pytest.raises(UnknownCommand, match="unknown command 'fro'"):
        client.call("fro")
    with pytest.raises(ClientError, match=r"^a must be int, not 'x'\. Usage: ADD a:int \[b:int\]$"):
        client.call("add", "x")
    assert client.call(add, 1) == 1


def test_a_reply_of_another_type_than_the_function_returns_is_an_error(client):
    def text(value: str) -> int:
        raise AssertionError

    def untyped(n: str) -> list[Point]:
        raise AssertionError

    with pytest.raises(UnexpectedReply, match=r"^reply must be int, not 'x'$"):
        client.call(text, "x")
    with pytest.raises(UnexpectedReply, match=r"^reply\.x is missing; reply\.day"):
        client.call(untyped, "x")


def test_a_request_that_is_too_long_is_refused_with_the_servers_reason(client):
    with pytest.raises(ClientError, match="a line may hold 8192 bytes at most"):
        client.call(text, "x" * 20_000_000)
    assert client.call(add, 1) == 1


def test_a_worker_that_dies_ends_its_call_alone(client):
    with pytest.raises(ConnectionFailed, match=r"closed|reset") as error:
        client.call(crash)
    assert error.value.was_sent
    assert client.call(add, 2, 3) == 5
    with client.pipeline() as pipeline:
        before = pipeline.call(add, 1, 1)
        crashed, after = pipeline.call(crash), pipeline.call(add, 1, 2)
    for pending in (crashed, after):
        with pytest.raises(ConnectionFailed):
            pending.result()
    with contextlib.suppress(
        ConnectionFailed
    ):  # its reply may have been with those that were not sent
        assert before.result() == 2
    assert client.call(add, 2, 3) == 5


def test_large_pipelines_do_not_wait_for_themselves(server, client):
    def check(pending):
        assert all(one.result() == b"\n\xff" * 5_000 for one in pending)

    with client.pipeline() as pipeline:
        blocks = [pipeline.call(photo, 5_000) for _ in range(1_000)]
        texts = [pipeline.call(text, "x" * 5_000) for _ in range(1_000)]
    check(blocks)
    assert {one.result() for one in texts} == {"x" * 5_000}

    async def send(client):
        async with client.pipeline() as pipeline:
            return [pipeline.call(photo, 5_000) for _ in range(1_000)]

    check(asynchronously(server, send))


def test_a_unix_socket_is_an_address(server):
    with Client(server.addresses[1]) as client:
        assert client.call(add, 2, 3) == 5

    async def call():
        async with AsyncClient(server.addresses[1]) as client:
            assert await client.call(add, 2, 3) == 5

    asyncio.run(call())


def test_threads_share_few_connections(server):
    with Client(server.address, max_connections=4) as client:

        def work(number):
            return [client.call(add, number * 1_000, step) for step in range(100)]

        with ThreadPoolExecutor(16) as threads:
            found = list(threads.map(work, range(16)))
        assert found == [[number * 1_000 + step for step in range(100)] for number in range(16)]
        assert len(client._flow._endpoints[0]._idle) <= 4


def test_parent_and_child_go_on_with_a_client_after_a_fork(client):
    assert client.call(add, 1) == 1
    stream = client.stream(countdown, 50_000)
    assert next(stream) == 50_000
    children = []
    for number in range(3):
        pid = os.fork()
        if pid == 0:
            try:
                with contextlib.suppress(ConnectionFailed):
                    list(stream)
                    os._exit(2)  # it has read what is the parent's
                os._exit(any(client.call(add, number, step) != number + step for step in range(50)))
            finally:
                os._exit(3)
        children.append(pid)
    assert [client.call(add, 100, step) for step in range(50)] == list(range(100, 150))
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children] == [0, 0, 0]
    assert sum(1 for _ in stream) == 49_999


def test_a_cancelled_call_leaves_no_reply_to_another(server):
    done = asynchronously(server, lambda one: cancel_calls(one, 300), max_connections=8)
    assert done > 0
