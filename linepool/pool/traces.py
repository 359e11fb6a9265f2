"""Traces for the simulation: when clients arrive, and how long they occupy a worker. Pure."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable

from attrs import frozen

from linepool.errors import SetupError

_MAX_SECONDS = 1e9  # so that every time fits into 64 bits of nanoseconds


@frozen
class Arrival:
    """One client: when it arrives, and how long it occupies a worker."""

    at_ns: int
    service_ns: int


def parse(lines: Iterable[str]) -> list[Arrival]:
    """Return the trace of CSV lines ``at_s,service_s``; times count from the first arrival.

    Empty lines, lines that begin with ``#`` and a header are ignored. Any order of lines will do.

    Raises:
        SetupError: A line is malformed (the message gives its number), or there are no arrivals.
    """
    pairs = []
    first = True
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        if not (first and text.replace(" ", "").lower() == "at_s,service_s"):
            pairs.append(_pair(number, text))
        first = False
    if not pairs:
        raise SetupError("no arrivals")
    begin = min(at for at, _ in pairs)
    return sorted(
        (Arrival(round((at - begin) * 1e9), round(service * 1e9)) for at, service in pairs),
        key=lambda arrival: arrival.at_ns,
    )


def _pair(number: int, text: str) -> tuple[float, float]:
    try:
        at, service = map(float, text.split(","))
    except ValueError:
        at = math.nan
        service = math.nan
    if not (abs(at) <= _MAX_SECONDS * 10 and 0 <= service <= _MAX_SECONDS):
        raise SetupError(f"line {number} must be at_s,service_s in seconds, not {text[:80]!r}")
    return at, service


def poisson(rate: float, service: float, seconds: float, seed: int) -> list[Arrival]:
    """Return random arrivals at a rate per second; service times are exponential with a mean.

    Raises:
        SetupError: No client arrives within the time.
    """
    source = random.Random(seed)  # noqa: S311 - not a secret
    trace = []
    at = source.expovariate(rate)
    while at < seconds:
        length = source.expovariate(1 / service)
        trace.append(Arrival(round(at * 1e9), round(length * 1e9)))
        at += source.expovariate(rate)
    if not trace:
        raise SetupError(f"no arrivals within {seconds:g} s")
    return trace


def burst(clients: int, service: float) -> list[Arrival]:
    """Return arrivals at the same moment, with the same service time."""
    return [Arrival(0, round(service * 1e9))] * clients
