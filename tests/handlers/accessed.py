"""Handlers whose requests end in all ways that the access log knows."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import linepool

seen: list[str] = []


@linepool.middleware
def watch(request: linepool.Request, session: linepool.Session) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        seen.append(f"{request.verb.decode()} {type(error).__name__}")
        raise
    seen.append(f"{request.verb.decode()} complete")


@linepool.on_error
def report(
    error: BaseException, request: linepool.Request | None, session: linepool.Session
) -> None:
    seen.append(f"reported {type(error).__name__}")


@linepool.handler
def events() -> list[str]:
    """Return what the two have seen since the last call."""
    found = seen.copy()
    seen.clear()
    return found


@linepool.handler("ADD", "PLUS")
def add(a: int, b: int) -> int:
    return a + b


@linepool.handler
def count(most: int) -> Iterator[int]:
    yield from range(most)


@linepool.handler
def breaks() -> Iterator[int]:
    yield 1
    raise KeyError


@linepool.handler
def fail() -> float:
    return 1 / 0


@linepool.handler(timeout=0.2)
def late() -> None:
    time.sleep(20)


@linepool.handler
def hang(word: str) -> None:
    time.sleep(1000)


@linepool.handler
def die() -> None:
    os._exit(3)


@linepool.handler
def login(name: str, password: linepool.Secret, session: linepool.Session) -> str:
    session.user = name
    return "welcome"


@linepool.handler
def put(key: str, size: int, data: bytes = linepool.body("size")) -> str:
    return key
