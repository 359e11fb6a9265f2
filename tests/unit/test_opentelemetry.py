"""Spans and durations of requests, as the SDK of OpenTelemetry gets them."""

import http.server
import json
import threading
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import linepool
from linepool.opentelemetry import instrument
from tests.servers import run_server

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Collected:
    """An app that is traced, and what was exported."""

    def __init__(self, protocol):
        self.exporter, self.reader = InMemorySpanExporter(), InMemoryMetricReader()
        tracers = TracerProvider()
        tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = tracers.get_tracer("test")
        self.app = linepool.App("traced", protocol=protocol)
        meters = MeterProvider([self.reader])
        instrument(self.app, tracer_provider=tracers, meter_provider=meters)

        @self.app.handler
        def add(a: int, b: int = 1) -> int:
            with self.tracer.start_as_current_span("inner"):
                return a + b

        @self.app.handler
        def say(to: str, text: linepool.Rest) -> str:
            return f"{to}: {text}"

        if isinstance(protocol, linepool.Line):

            @self.app.handler
            def put(size: int, data: bytes = linepool.body("size")) -> int:
                return len(data)

        @self.app.handler
        def fail(how: str) -> str:
            if how == "client":
                raise linepool.ClientError("no", code=7)
            if how == "server":
                raise linepool.ServerError("stuck")
            raise KeyError(how)

        @self.app.handler
        def count():
            yield 1
            with self.tracer.start_as_current_span("late"):
                yield 2

    def ask(self, data):
        """Return the reply, and the spans by their names."""
        reply = self.app.ask(data)
        spans = {span.name: span for span in self.exporter.get_finished_spans()}
        self.exporter.clear()
        return reply, spans


@pytest.fixture
def line():
    return Collected(linepool.Line())


def parent_of(span):
    return f"{span.parent.trace_id:032x}-{span.parent.span_id:016x}" if span.parent else ""


def test_a_span_is_named_by_the_command_and_has_the_attributes_of_the_conventions(line):
    reply, spans = line.ask(b"add 2 3\n")
    span = spans["ADD"]

    assert reply == b"5\n"
    assert span.kind is trace.SpanKind.SERVER
    assert span.parent is None
    assert spans["inner"].parent.span_id == span.context.span_id
    assert {**span.attributes} == {
        "rpc.system.name": "line",
        "rpc.method": "ADD",
        "network.peer.address": "ask",
        "network.transport": "unix",
        "server.address": "ask",
    }
    assert span.status.status_code is trace.StatusCode.UNSET


@pytest.mark.parametrize(
    ("request_", "reply"),
    [
        (f"add 2 3 traceparent={PARENT}", b"5\n"),
        (f"add 2 tracestate=x=1,y=2 traceparent={PARENT}", b"3\n"),
        (f"say ada two  words traceparent={PARENT} tracestate=x=1", b"ada: two  words\n"),
        (f"put 4 traceparent={PARENT}\nabcd", b"4\n"),
    ],
)
def test_words_at_the_end_of_a_line_name_the_trace(line, request_, reply):
    got, spans = line.ask(request_.encode() + b"\n")

    assert got == reply
    assert parent_of(spans[request_[:3].upper()]) == PARENT[3:-3]


def test_words_that_are_not_a_trace_do_no_harm(line):
    assert line.ask(b"add 2 traceparent=rubbish\n")[0] == b"3\n"
    reply, spans = line.ask(b"say ada traceparent=rubbish\n")
    assert (reply, parent_of(spans["SAY"])) == (b"ada: traceparent=rubbish\n", "")
    reply, _ = line.ask(f"say ada traceparent={PARENT}\n".encode())
    assert reply.startswith(b"CLIENT_ERROR")  # the text is missing


def test_errors_are_in_the_span(line):
    _, spans = line.ask(b"fail client\n")
    span = spans["FAIL"]
    assert span.attributes["error.type"] == "ClientError"
    assert span.attributes["rpc.response.status_code"] == "7"
    assert span.status.status_code is trace.StatusCode.UNSET

    span = line.ask(b"fail server\n")[1]["FAIL"]
    assert (span.status.status_code, span.status.description) == (trace.StatusCode.ERROR, "stuck")

    span = line.ask(b"fail badly\n")[1]["FAIL"]
    assert span.attributes["error.type"] == "KeyError"
    assert span.status.status_code is trace.StatusCode.ERROR
    assert span.events[0].attributes["exception.type"] == "KeyError"

    assert line.ask(b"add x 1\n")[1]["ADD"].attributes["error.type"] == "UsageError"
    assert line.ask(b"nonsense\n")[1]["_OTHER"].attributes["rpc.method"] == "_OTHER"


def test_a_span_is_around_all_of_a_stream(line):
    reply, spans = line.ask(b"count\n")

    assert reply.split() == [b"1", b"2", b"END"]
    assert spans["late"].parent.span_id == spans["COUNT"].context.span_id
    assert spans["COUNT"].end_time >= spans["late"].end_time


def test_durations_are_counted_by_command_and_error(line):
    line.ask(b"add 1\nadd x\nadd 1\n")
    (resource,) = line.reader.get_metrics_data().resource_metrics
    (scope,) = resource.scope_metrics
    (metric,) = scope.metrics
    counts = {
        (one.attributes["rpc.method"], one.attributes.get("error.type")): one.count
        for one in metric.data.data_points
    }

    assert (metric.name, metric.unit) == ("rpc.server.call.duration", "s")
    assert counts == {("ADD", None): 2, ("ADD", "UsageError"): 1}


def test_members_of_a_call_name_the_trace():
    calls = [
        {"jsonrpc": "2.0", "id": 1, "method": "add", "params": [2, 3], "traceparent": PARENT},
        {"jsonrpc": "2.0", "id": 2, "method": "add", "params": [2, 3], "traceparent": 7},
    ]
    traced = Collected(linepool.JsonRpc())
    _, spans = traced.ask(json.dumps(calls[0]).encode() + b"\n")
    span = spans["add"]
    assert parent_of(span) == PARENT[3:-3]
    assert span.attributes["jsonrpc.request.id"] == "1"
    assert parent_of(traced.ask(json.dumps(calls[1]).encode() + b"\n")[1]["add"]) == ""

    reply = traced.app.ask(json.dumps(calls).encode() + b"\n")
    spans = [one for one in traced.exporter.get_finished_spans() if one.name == "add"]
    assert [one["result"] for one in json.loads(reply)] == [5, 5]
    assert [parent_of(one) for one in spans] == [PARENT[3:-3], ""]


class Collector(http.server.BaseHTTPRequestHandler):
    """What receives OTLP over HTTP."""

    spans: list[tuple[Any, Any]]
    paths: set[str]

    def do_POST(self):
        data = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/v1/traces":
            type(self).spans += [
                (resource.resource, span)
                for resource in ExportTraceServiceRequest.FromString(data).resource_spans
                for scope in resource.scope_spans
                for span in scope.spans
            ]
        self.paths.add(self.path)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def test_spans_and_durations_leave_the_workers_of_a_server(tmp_path: Path):
    app = tmp_path / "traced.py"
    app.write_text(
        "import linepool\n"
        "from linepool.opentelemetry import instrument\n"
        "app = linepool.App('sums')\n"
        "instrument(app)\n"
        "@app.handler\n"
        "def add(a: int, b: int) -> int:\n"
        "    return a + b\n"
    )
    Collector.spans, Collector.paths = [], set()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector) as collector:
        thread = threading.Thread(target=collector.serve_forever, args=[0.01])
        thread.start()
        endpoint = f"http://127.0.0.1:{collector.server_port}"
        variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}
        with run_server(app, tmp_path, "--workers", "1", **variables) as server:
            assert server.ask(f"add 2 3 traceparent={PARENT}") == "5"
            port = server.port
        collector.shutdown()
        thread.join()
    ((resource, span),) = Collector.spans
    attributes = {one.key: one.value for one in span.attributes}
    assert (span.name, span.trace_id.hex()) == ("ADD", PARENT[3:35])
    assert attributes["network.peer.address"].string_value == "127.0.0.1"
    assert attributes["server.port"].int_value == port
    names = {one.key: one.value.string_value for one in resource.attributes}
    assert names["service.name"] == "sums"
    assert Collector.paths == {"/v1/traces", "/v1/metrics"}
