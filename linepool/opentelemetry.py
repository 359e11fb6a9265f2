"""OpenTelemetry: a span and a duration for each request, and for each call of a client.

Needs ``pip install 'linepool[opentelemetry]'``.

Names and attributes are those of the semantic conventions for RPC
(https://opentelemetry.io/docs/specs/semconv/rpc/). What the exporters need, threads and connections, is made
in each worker, after the fork.
"""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Generator
from typing import Any

from opentelemetry import context, metrics, propagate, trace
from opentelemetry.trace import Span, SpanKind, StatusCode

from linepool.app import App
from linepool.client.hooks import Call, Hook
from linepool.errors import ReplyError, ServerError
from linepool.protocols.base import Request
from linepool.protocols.jsonrpc import JsonRpc
from linepool.protocols.line import Line
from linepool.session import Session
from linepool.version import __version__

_FIELDS = ("traceparent", "tracestate")  # https://www.w3.org/TR/trace-context/
_WORD = re.compile(rb"(traceparent|tracestate)=([!-~]*)")
_PARENT = rb"traceparent=[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}"
_TAIL = re.compile(rb"(?:\A|[ \t]+)(" + _PARENT + rb"(?:[ \t]+tracestate=[!-~]+)?)[ \t]*\Z")
_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
_UNKNOWN = "_OTHER"  # the name of all methods that the server does not know
_GONE = "client_disconnected"


def instrument(
    app: App,
    *,
    tracer_provider: trace.TracerProvider | None = None,
    meter_provider: metrics.MeterProvider | None = None,
) -> None:
    """Have each request of an app traced and measured: a span, named by its command, to its reply's end.

    Call it before other middleware is registered: the span is around what is registered later.

    Without arguments, each worker uses the providers that are set for the whole process by then, in a hook
    ``on_worker_start`` that is registered before; if there are none, it sets some that export by OTLP over
    HTTP, as the environment says (``OTEL_EXPORTER_OTLP_ENDPOINT``, ``OTEL_SERVICE_NAME`` ...).

    Args:
        app: The app.
        tracer_provider: Makes the spans. Its processors must work after a fork.
        meter_provider: Makes the histogram.
    """
    telemetry = _Telemetry(app)

    @app.on_worker_start
    def start_telemetry() -> None:
        if tracer_provider is None and meter_provider is None and not _has_provider():
            _export(app.name)
        telemetry.start(tracer_provider, meter_provider)

    app.middleware(telemetry.around)


def client_hook(
    *,
    tracer_provider: trace.TracerProvider | None = None,
    meter_provider: metrics.MeterProvider | None = None,
) -> Hook:
    """Return a hook for clients: ``Client(..., hooks=[client_hook()])``.

    Each call is a span of the kind CLIENT, a child of the present one, and the parent of the span that the
    server makes for the request. Without arguments, the providers of the process are used, whenever they
    are set.

    Args:
        tracer_provider: Makes the spans.
        meter_provider: Makes the histogram.
    """
    tracer = trace.get_tracer("linepool", __version__, tracer_provider)
    durations = metrics.get_meter("linepool", __version__, meter_provider).create_histogram(
        "rpc.client.call.duration",
        unit="s",
        description="Measures the duration of an outgoing Remote Procedure Call (RPC).",
        explicit_bucket_boundaries_advisory=_BOUNDS,
    )

    def around(call: Call) -> Generator[None, None, None]:
        common = {"rpc.system.name": call.protocol, "rpc.method": call.command}
        span = tracer.start_span(call.command, kind=SpanKind.CLIENT, attributes=common)
        carrier: dict[str, str] = {}
        propagate.inject(carrier, trace.set_span_in_context(span))
        call.traceparent = carrier.get("traceparent", "")
        yield
        common |= _server(call.address)
        if call.error is not None:
            common["error.type"] = _kind_of(call.error)
            span.set_status(StatusCode.ERROR, str(call.error))
        span.set_attributes({**common, "linepool.retries": call.retries})
        if call.id:
            span.set_attribute("linepool.request.id", call.id)
        durations.record(call.seconds, common)
        span.end()

    return around


@functools.lru_cache(maxsize=1024)
def _server(address: str) -> dict[str, Any]:
    """Return the attributes of the server that was called."""
    return {name: value for name, value in _ends("", address).items() if name.startswith("server")}


class _Telemetry:
    """What is around each request of an app."""

    def __init__(self, app: App) -> None:
        self._is_rpc = isinstance(app.protocol, JsonRpc)
        self._system = type(app.protocol).__name__.lower()
        self._has_words = isinstance(app.protocol, Line)

    def start(
        self, tracers: trace.TracerProvider | None, meters: metrics.MeterProvider | None
    ) -> None:
        """Begin in this process."""
        self._tracer = trace.get_tracer("linepool", __version__, tracers)
        meter = metrics.get_meter("linepool", __version__, meters)
        self._durations = meter.create_histogram(
            "rpc.server.call.duration",
            unit="s",
            description="Measures the duration of an incoming Remote Procedure Call (RPC).",
            explicit_bucket_boundaries_advisory=_BOUNDS,
        )

    def around(self, request: Request, session: Session) -> Generator[None, None, None]:
        """Trace and measure a request; middleware."""
        carrier = self._carrier(request)
        parent = propagate.extract(carrier) if carrier else context.get_current()
        method = request.command.names[0] if request.command and request.command.names else _UNKNOWN
        common = {"rpc.system.name": self._system, "rpc.method": method}
        span = self._tracer.start_span(
            method,
            parent,
            SpanKind.SERVER,
            attributes={**common, **self._details(request, session)},
            record_exception=False,
            set_status_on_exception=False,
        )
        began = time.perf_counter()
        token = context.attach(trace.set_span_in_context(span, parent))
        failed: dict[str, str] = {}
        try:
            yield
        except BaseException as error:
            failed = {"error.type": _note_error(span, error)}
            raise
        finally:
            self._durations.record(time.perf_counter() - began, {**common, **failed})
            context.detach(token)
            span.end()

    def _carrier(self, request: Request) -> dict[str, str]:
        """Return what the client says of its trace; its words are taken out of the request."""
        if given := getattr(request, "trace", b""):
            return {"traceparent": given.decode("ascii", "replace")}
        members = getattr(request, "members", None)
        if members:
            return {name: members[name] for name in _FIELDS if isinstance(members.get(name), str)}
        words = request.words
        if not self._has_words or not words:
            return {}
        command = request.command
        if command is not None and command.rest_after is not None:
            match = _TAIL.search(words[-1])
            if match is None:
                return {}
            words[-1:] = [words[-1][: match.start()]] if match.start() else []
            return {name.decode(): value.decode() for name, value in _WORD.findall(match[1])}
        found = {}
        while words and (match := _WORD.fullmatch(words[-1])):
            found[match[1].decode()] = match[2].decode()
            words.pop()
        return found

    def _details(self, request: Request, session: Session) -> dict[str, Any]:
        """Return the attributes of a span that are not those of the histogram."""
        ends = _ends(session.peer, session.listener)
        if not self._is_rpc:
            return ends
        details = {**ends, "jsonrpc.protocol.version": "2.0"}
        if (number := getattr(request, "call_id", None)) is not None:
            details["jsonrpc.request.id"] = str(number)
        return details


@functools.lru_cache(maxsize=1024)
def _ends(peer: str, listener: str) -> dict[str, Any]:
    """Return the attributes of a connection."""
    details: dict[str, Any] = {}
    for prefix, name in (("network.peer", peer), ("server", listener)):
        host, colon, port = name.rpartition(":")
        if colon and port.isdigit():
            details[f"{prefix}.address"] = host.strip("[]")
            details[f"{prefix}.port"] = int(port)
        else:
            details[f"{prefix}.address"] = name.removeprefix("unix:")
    details["network.transport"] = "tcp" if "network.peer.port" in details else "unix"
    return details


def _note_error(span: Span, error: BaseException) -> str:
    """Note in a span what has ended its request; return its ``error.type``."""
    if isinstance(error, GeneratorExit):
        span.set_attribute("error.type", _GONE)
        return _GONE
    kind = _kind_of(error)
    span.set_attribute("error.type", kind)
    if isinstance(error, ReplyError):
        if error.code is not None:
            span.set_attribute("rpc.response.status_code", str(error.code))
    else:
        span.record_exception(error)
    if not isinstance(error, ReplyError) or isinstance(error, ServerError):
        span.set_status(StatusCode.ERROR, str(error))
    return kind


def _kind_of(error: BaseException) -> str:
    """Return the ``error.type`` of an exception."""
    kind = type(error)
    is_known = kind.__module__.partition(".")[0] in ("builtins", "linepool")
    return kind.__qualname__ if is_known else f"{kind.__module__}.{kind.__qualname__}"


def _has_provider() -> bool:
    """Whether a provider of spans has been set for this process."""
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


def _export(name: str) -> None:
    """Set providers for this process that export by OTLP over HTTP."""
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import (  # noqa: PLC0415 - with threads
        OTLPMetricExporter,
    )
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415
        OTLPSpanExporter,
    )
    from opentelemetry.sdk.metrics import MeterProvider  # noqa: PLC0415
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader  # noqa: PLC0415
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    resource = Resource.create()
    if name and str(resource.attributes["service.name"]).startswith("unknown_service"):
        resource = resource.merge(Resource({"service.name": name}))
    tracers = TracerProvider(resource=resource)
    tracers.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(tracers)
    reader = PeriodicExportingMetricReader(OTLPMetricExporter())
    metrics.set_meter_provider(MeterProvider([reader], resource))
