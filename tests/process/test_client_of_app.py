"""Clients in all their protocols, and those that call an app in its own process: all give the same."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from datetime import date
from decimal import Decimal
from enum import Enum
from typing import Any

import attrs
import pytest

from linepool import (
    App,
    AsyncClient,
    Client,
    ClientError,
    Connection,
    Dialogue,
    JsonRpc,
    Line,
    Resp,
    ServerError,
    Session,
    SetupError,
)
from linepool.client import CallTimeout, ConnectionFailed
from linepool.client.command import Command
from linepool.testing import async_client, client, serve
from tests.certificates import Authority


class Colour(Enum):
    RED = "red"


@attrs.frozen
class Order:
    amount: Decimal
    day: date
    raw: bytes = b"\xff\n"
    colour: Colour | None = None
    parts: tuple[str, bytes] = ("a", b"b")
    notes: dict[str, list[bytes]] = attrs.field(factory=dict)


ORDER = Order(Decimal("1.50"), date(2026, 1, 31), colour=Colour.RED, notes={"n": [b"\0", b""]})


def add(a: int, b: int = 1) -> int:
    return a + b


def nothing() -> None:
    pass


def text(value: str) -> str:
    return value


def photo(size: int) -> bytes:
    return b"\xff\n" * size


def total(*numbers: float) -> float:
    return sum(numbers)


def again(order: Order) -> Order:
    return order


def orders(count: int) -> list[Order]:
    return [ORDER] * count


def either(which: int) -> Order | str | None:
    return (None, "text", ORDER)[which]


def pair(value: str) -> tuple[str, bytes]:
    return value, value.encode()


def distinct(values: list[int]) -> set[int]:
    return set(values)


def days(by_name: dict[str, date]) -> dict[str, date]:
    return by_name


def flag(*, fast: bool = False, speed: float | None = None) -> list[float | None]:
    return [float(fast), speed]


def countdown(start: int) -> Iterator[int]:
    yield from range(start, 0, -1)


def fail() -> None:
    raise RuntimeError("a secret")


def refuse(code: int) -> None:
    raise ClientError("not now", code=code)


def broken() -> None:
    raise ServerError("the database is away")


HANDLERS = (
    *(add, nothing, text, photo, total, again, orders, either, pair, distinct, days, flag),
    *(countdown, fail, refuse, broken),
)
GOOD: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = [
    (add, (2, 3), {}),
    (add, (), {"a": 2}),
    (add, (2,), {"b": 5}),
    ("add", (2**70, 3), {}),
    (nothing, (), {}),
    (text, ("two  blanks \"and' é\n",), {}),
    (text, ("",), {}),
    ("text", ("x",), {}),
    (photo, (3,), {}),
    ("photo", (100_000,), {}),
    (total, (1.5, 2), {}),
    (total, (), {}),
    (again, (ORDER,), {}),
    (orders, (3,), {}),
    (orders, (0,), {}),
    ("orders", (1,), {}),
    *((either, (which,), {}) for which in range(3)),
    (pair, ("é",), {}),
    (distinct, ([3, 1, 3],), {}),
    (days, ({"a": ORDER.day},), {}),
    (flag, (), {"fast": True, "speed": 0.5}),
    (flag, (), {}),
    (countdown, (3,), {}),
]
MISTAKES: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = [
    (add, ("x",), {}),
    (add, (), {}),
    ("add", (1, 2, 3), {}),
    ("nowhere", (), {}),
    ("two words", (), {}),
    (fail, (), {}),
    (refuse, (7,), {}),
    (broken, (), {}),
    (text, (object(),), {}),
]
ALL = [*GOOD, *MISTAKES]
PROTOCOLS = {"line": Line(), "jsonrpc": JsonRpc(), "resp": Resp()}


def make_app(name: str) -> App:
    app = App(protocol=PROTOCOLS[name])
    for function in HANDLERS:
        app.handler(function)
    return app


APPS = {name: make_app(name) for name in PROTOCOLS}


@pytest.fixture(scope="module", params=PROTOCOLS)
def protocol(request):
    return request.param


@pytest.fixture(scope="module")
def server(protocol):
    with serve(APPS[protocol], workers=1) as server:
        yield server


def outcome(work: Callable[[], Any]) -> Any:
    """Return what a call returns, or its error without what is different each time."""
    try:
        made = work()
        return list(made) if hasattr(made, "__next__") else made
    except Exception as error:  # noqa: BLE001 - they are compared
        return facts_of(error)


def facts_of(error: Exception) -> tuple[Any, ...]:
    facts = [getattr(error, name, None) for name in ("code", "data", "usage", "was_sent")]
    said = re.sub(r"(id|fault) [0-9a-f]+|0x[0-9a-f]+", "ID", str(error))
    return type(error), said, facts, bool(getattr(error, "id", None))


def all_outcomes(calls: Any) -> list[Any]:
    found = [outcome(lambda one=one: calls.call(one[0], *one[1], **one[2])) for one in ALL]  # type: ignore[misc]
    found.append(outcome(lambda: calls.stream(countdown, 3)))
    found.append(outcome(lambda: calls.stream("add", 3)))
    found.append(outcome(lambda: calls.stream(fail)))
    with calls.pipeline() as pipeline:
        pending = [pipeline.call(add, number) for number in range(3)]
        pending.append(pipeline.call("nowhere"))
    return found + [outcome(one.result) for one in pending]


async def all_outcomes_async(calls: Any) -> list[Any]:
    async def settled(function: Any, *given: Any, **named: Any) -> Any:
        try:
            made = await function(*given, **named)
        except Exception as error:  # noqa: BLE001 - they are compared
            return facts_of(error)
        return list(made) if hasattr(made, "__next__") else made

    async def streamed(*given: Any) -> list[Any]:
        return [value async for value in calls.stream(*given)]

    found = [await settled(calls.call, one[0], *one[1], **one[2]) for one in ALL]
    found.append(await settled(streamed, countdown, 3))
    found.append(await settled(streamed, "add", 3))
    found.append(await settled(streamed, fail))
    async with calls.pipeline() as pipeline:
        pending = [pipeline.call(add, number) for number in range(3)]
        pending.append(pipeline.call("nowhere"))
    return found + [outcome(one.result) for one in pending]


def test_all_clients_give_the_same(protocol, server):
    with server.client() as calls:
        real = all_outcomes(calls)
    with client(APPS[protocol]) as calls:
        assert all_outcomes(calls) == real

    async def ask(calls):
        async with calls:
            return await all_outcomes_async(calls)

    assert asyncio.run(ask(AsyncClient(server.address, protocol=protocol))) == real
    assert asyncio.run(ask(async_client(APPS[protocol]))) == real


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_call_of_a_function_returns_what_the_function_does(name):
    with client(APPS[name]) as calls:
        for function, given, named in GOOD:
            if not isinstance(function, str):
                made, expected = calls.call(function, *given, **named), function(*given, **named)
                if function is countdown:
                    made, expected = list(made), list(expected)
                assert made == expected, function.__name__


def test_a_handler_that_is_late_is_a_timeout(protocol, server):
    with serve(slow_app(protocol), workers=1, request_timeout=0.3) as slow, slow.client() as calls:
        with pytest.raises(CallTimeout, match=r"took longer than 0\.3 s") as caught:
            calls.call("sleep")
        assert caught.value.was_sent


def test_a_deadline_reaches_the_handler_in_jsonrpc():
    with serve(slow_app("jsonrpc"), workers=1) as server, server.connect() as peer:
        request = '{"jsonrpc":"2.0","id":1,"method":"sleep","timeout_ms":%s}'
        assert '"why":"deadline"' in peer.ask(request % "200")
        for wrong in ("0", "-1", "1.5", "true", '"5"', "1e3", "1000000000"):
            assert "timeout_ms must be whole, above 0" in peer.ask(request % wrong)


def slow_app(protocol: str) -> App:
    app = App(protocol=PROTOCOLS[protocol])

    @app.handler
    def sleep() -> None:
        import threading

        threading.Event().wait(60)

    return app


def test_a_server_of_another_protocol_is_named(server, protocol):
    for other in PROTOCOLS:
        if other != protocol:
            with (
                Client(server.address, protocol=other, retries=False) as calls,  # type: ignore[arg-type]
                pytest.raises(ConnectionFailed, match=f"but seems to speak protocol='{protocol}'"),
            ):
                calls.call(add, 1, 2)


def test_a_client_ends_with_its_server():
    with serve(APPS["line"], workers=1) as server:
        calls = server.client(timeout=5)
        assert calls.call(add, 1, 2) == 3
    with pytest.raises(ConnectionFailed, match="closed"):
        calls.call(add, 1, 2)


def test_a_client_in_the_process_has_one_worker_and_the_hooks_of_connections():
    app = App()
    events = []

    @app.resource
    def database() -> Iterator[list[int]]:
        events.append("open")
        yield []
        events.append("close")

    @app.on_connect
    def greet(session: Session) -> None:
        events.append("connect")

    @app.on_disconnect
    def leave(session: Session) -> None:
        events.append("disconnect")

    @app.handler
    def append(value: int, database: list[int]) -> list[int]:
        database.append(value)
        return list(database)

    @app.handler
    def end(connection: Connection) -> None:
        connection.close()

    with client(app) as calls:
        assert events == []
        assert calls.call("append", 1) == [1]
        assert calls.call("append", 2) == [1, 2]
        stream: Any = calls.stream("append", 3)
        assert next(stream) == 1
        assert calls.call("append", 4) == [1, 2, 3, 4]  # on a connection of its own
        stream.close()
        assert calls.call("end") is None
        assert calls.call("append", 5) == [1, 2, 3, 4, 5]
    assert events == [
        "open",
        *["connect"] * 2,
        *["disconnect"] * 2,
        "connect",
        "disconnect",
        "close",
    ]


class Sums(Client):
    """As linepool stub writes one."""

    def add(self, a: int, b: int) -> int:
        return self.call(Command("ADD", int), a, b)


class AsyncSums(AsyncClient):
    async def add(self, a: int, b: int) -> int:
        return await self.call(Command("ADD", int), a, b)


def test_classes_of_clients_call_an_app_in_its_process_and_on_a_server():
    app = APPS["line"]
    with client(app, Sums) as sums, serve(app, workers=1) as server:
        assert isinstance(sums, Sums)
        assert sums.add(2, 3) == 5
        assert sums.with_options(timeout=1).add(2, 4) == 6
        assert server.client(Sums, timeout=5).add(2, 5) == 7

    async def add():
        async with async_client(app, AsyncSums) as sums:
            return await sums.add(2, 6)

    assert asyncio.run(add()) == 8


def test_a_server_with_tls_and_one_that_requires_certificates(tmp_path):
    authority = Authority(tmp_path)
    server_file = str(authority.certificate("server", "IP:127.0.0.1"))
    mine = authority.certificate("mine")
    for protocol, app in APPS.items():
        more = {"tls_ca": str(authority.path)} if protocol == "line" else {}
        given = {"tls_cert": mine} if protocol == "line" else {}
        with serve(app, workers=1, tls_cert=server_file, **more) as server:
            calls = server.client(tls_ca=authority.path, **given)
            assert calls.call(add, 2, 3) == 5
            assert calls.call(photo, 100_000) == photo(100_000)
            assert list(calls.stream(countdown, 3)) == [3, 2, 1]
            with pytest.raises(ConnectionFailed, match="is not trusted"):
                server.client(tls=True).call(add, 2, 3)
            if given:
                with pytest.raises(ConnectionFailed, match="requires a client certificate"):
                    server.client(tls_ca=authority.path).call(add, 2, 3)


def test_what_the_client_does_not_speak_is_refused():
    for protocol in (Dialogue.smtp("220 x"), Line(framed=False), JsonRpc(framing="headers")):
        with pytest.raises(SetupError, match="the client does not speak"):
            client(App(protocol=protocol))
