"""A sum, observed as the variable OBSERVED says; for the benchmark ``observing``."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import linepool

app = linepool.App("observed")
OBSERVED = os.environ.get("OBSERVED", "")

if OBSERVED == "opentelemetry":
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace import TracerProvider

    from linepool.opentelemetry import instrument

    # Spans and durations are made; none is exported.
    instrument(
        app,
        tracer_provider=TracerProvider(),
        meter_provider=MeterProvider([InMemoryMetricReader()]),
    )


@app.handler
def add(a: int, b: int) -> int:
    """Add two whole numbers."""
    return a + b


def through(
    request: linepool.Request, session: linepool.Session, call_next: Callable[..., Any]
) -> Any:
    """Do nothing around a request."""
    return call_next(request)


def around(request: linepool.Request, session: linepool.Session) -> Iterator[None]:
    """Do nothing around a request."""
    yield


def ignore(exception: BaseException, request: object, session: object) -> None:
    """Do nothing with an exception."""


match OBSERVED:
    case "on_error":
        app.on_error(ignore)
    case "call_next":
        app.middleware(through)
    case "generator":
        app.middleware(around)
