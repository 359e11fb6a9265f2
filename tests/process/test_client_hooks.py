"""Hooks around calls, and traces that go on from the client in the server."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from linepool import App, AsyncClient, Client, ClientError
from linepool.client import ConnectionFailed
from linepool.opentelemetry import client_hook, instrument
from linepool.testing import serve

SPANS = InMemorySpanExporter()  # of the server's only worker, and of this process
PROVIDER = TracerProvider()
PROVIDER.add_span_processor(SimpleSpanProcessor(SPANS))


def add(a: int, b: int = 0) -> int:
    return a + b


def countdown(start: int) -> Iterator[int]:
    yield from range(start, 0, -1)


def spans() -> list[tuple[str, str, str]]:
    """Return the names of this worker's spans, with the ids of their traces and of the spans above."""
    found = []
    for one in SPANS.get_finished_spans():
        above = f"{one.parent.span_id:016x}" if one.parent else ""
        found.append((one.name, f"{one.context.trace_id:032x}", above))
    SPANS.clear()
    return found


@pytest.fixture(scope="module")
def server():
    app = App()
    instrument(app, tracer_provider=PROVIDER)
    for function in (add, countdown, spans):
        app.handler(function)
    with serve(app, workers=1) as server:
        yield server


def told_to(calls):
    """Return a hook that collects calls; it sees the names of those that begin."""

    def hook(call):
        began = call.command, call.seconds, call.address
        yield
        calls.append((*began, call))

    return hook


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_a_hook_sees_each_call_and_what_it_ends_with(server, kind):
    calls: list[Any] = []
    hooks = [told_to(calls)]

    async def work(client):
        async def of(value):
            return await value if kind is AsyncClient else value

        assert await of(client.call(add, 2, 3)) == 5
        with pytest.raises(ClientError) as error:
            await of(client.call("add", "x"))
        stream = client.stream(countdown, 3)
        if kind is AsyncClient:
            assert [one async for one in stream] == [3, 2, 1]
            left = client.stream(countdown, 3)
            await anext(left)
            await left.aclose()
            async with client.pipeline() as pipeline:
                pipeline.call(add, 1)
                pipeline.call("nothing")
        else:
            assert list(stream) == [3, 2, 1]
            next(client.stream(countdown, 3))
            with client.pipeline() as pipeline:
                pipeline.call(add, 1)
                pipeline.call("nothing")
        return error.value

    async def run():
        client = kind(server.address, hooks=hooks)
        try:
            return await work(client)
        finally:
            client.close()

    error = asyncio.run(run())
    names = ["add", "add", "countdown", "countdown", "add", "nothing"]
    assert sorted(one.command for *_, one in calls) == sorted(names)
    for name, seconds, address, call in calls:
        assert (name, seconds, address) == (call.command, 0, "")
        assert call.address == server.address
        assert call.seconds > 0
        assert call.retries == 0
    failed = {call.command: call for *_, call in calls if call.error is not None}
    assert failed["add"].error is error
    assert failed["add"].id == error.id
    assert sorted(failed) == ["add", "nothing"]


def test_a_hook_sees_retries_and_the_cancellation_of_a_call():
    async def run():
        calls: list[Any] = []

        async def close(_reader, writer):
            writer.close()

        async with await asyncio.start_server(close, "127.0.0.1", 0) as listener:
            address = "127.0.0.1:{1}".format(*listener.sockets[0].getsockname())
            client = AsyncClient(address, hooks=[told_to(calls)])
            with pytest.raises(ConnectionFailed):
                await client.with_options(idempotent=True).call("f")
            task = asyncio.create_task(client.call("f"))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            client.close()
        return [call for *_, call in calls]

    failed, cancelled = asyncio.run(run())
    assert isinstance(failed.error, ConnectionFailed)
    assert failed.retries >= 2
    assert isinstance(cancelled.error, asyncio.CancelledError)


def test_what_a_hook_raises_is_logged_and_changes_no_call(server, caplog):
    def fails_before(call):
        if call.command:
            raise RuntimeError("before")
        yield

    def fails_after(call):
        yield
        raise RuntimeError("after")

    def is_no_generator(call):
        assert call.address

    def returns(call):
        return None

    def yields_twice(call):
        yield
        yield

    hooks: list[Any] = [fails_before, fails_after, is_no_generator, returns, yields_twice]
    with Client(server.address, hooks=hooks) as client:
        assert client.call(add, 2, 3) == 5
    assert sorted(record.getMessage() for record in caplog.records) == [
        *["hook of a client failed command=add"] * 3,
        "hook of a client must be a generator function command=add",
        "hook of a client must yield once command=add",
    ]


def test_the_spans_of_client_and_server_are_one_trace(server):
    SPANS.clear()
    reader = InMemoryMetricReader()
    meters = MeterProvider([reader])
    hook = client_hook(tracer_provider=PROVIDER, meter_provider=meters)
    with Client(server.address, hooks=[hook]) as client:
        client.call(spans)
        SPANS.clear()
        with PROVIDER.get_tracer("test").start_as_current_span("job"):
            assert client.call(add, 2, 3) == 5
            assert client.call("add", a=2) == 2
            with contextlib.suppress(ClientError):
                client.call("add", "x")
        of_server = client.call(spans)
    ended: Any = SPANS.get_finished_spans()
    *mine, job, _ = ended
    trace = f"{job.context.trace_id:032x}"
    assert {one.context.trace_id for one in mine} == {job.context.trace_id}
    assert [one.parent and one.parent.span_id for one in mine] == [job.context.span_id] * 3
    assert [one.kind for one in mine] == [SpanKind.CLIENT] * 3
    assert of_server[1:] == [("ADD", trace, f"{one.context.span_id:016x}") for one in mine]
    host, _, port = server.address.rpartition(":")
    assert (
        mine[0].attributes.items()
        >= {
            "rpc.system.name": "line",
            "rpc.method": "add",
            "server.address": host,
            "server.port": int(port),
        }.items()
    )
    assert mine[0].status.status_code is StatusCode.UNSET
    assert mine[-1].status.status_code is StatusCode.ERROR
    assert mine[-1].attributes["error.type"] == "UsageError"
    measured: Any = reader.get_metrics_data()
    (metric,) = measured.resource_metrics[0].scope_metrics[0].metrics
    assert metric.name == "rpc.client.call.duration"
    assert sum(point.count for point in metric.data.data_points) == 5
