"""Seats of a theatre, sold by several servers: what they share is in Valkey or Redis.

    STORE=redis://127.0.0.1:6379/0 linepool run examples/services/seats.py --bind 127.0.0.1:7000

TAKE SHOW SEAT NAME reserves a seat for ten minutes, unless somebody has it. Each worker has a pool of
connections of its own, made when it starts. While the store does not answer, commands fail, and serve again
when it is back.
"""

import os
from collections.abc import Callable, Iterator
from typing import Any

import redis

import linepool
from linepool import Request, Session

app = linepool.App("seats")
STORE = os.environ.get("STORE", "redis://127.0.0.1:6379/0")
HELD_S = 600
Next = Callable[[Request], Any]


class Seats:
    """Who has which seat; every server that uses the same store sees the same."""

    def __init__(self, store: redis.Redis) -> None:
        self.store = store

    def take(self, seat: str, name: str) -> bool:
        return bool(self.store.set(seat, name, nx=True, ex=HELD_S))

    def free(self, seat: str) -> None:
        self.store.delete(seat)

    def holder(self, seat: str) -> str:
        return str(self.store.get(seat) or "")


@app.resource
def seats() -> Iterator[Seats]:
    # A worker runs one handler at a time, so its pool has one connection; only threads would need more.
    options = {"decode_responses": True, "socket_timeout": 0.5, "health_check_interval": 10}
    with redis.Redis.from_url(STORE, max_connections=4, **options) as store:
        yield Seats(store)


@app.middleware
def say_when_the_store_is_away(request: Request, session: Session, call_next: Next) -> Any:
    try:
        return call_next(request)
    except redis.RedisError:
        raise linepool.ServerError("the store does not answer; try again later") from None


@app.handler
def take(show: str, seat: int, name: str, seats: Seats) -> str:
    """Reserve a seat for ten minutes."""
    if not seats.take(f"{show}:{seat}", name):
        raise linepool.ClientError(f"seat {seat} is taken")
    return f"seat {seat} is yours, {name}"


@app.handler
def free(show: str, seat: int, name: str, seats: Seats) -> str:
    """Give a seat back."""
    if seats.holder(f"{show}:{seat}") != name:
        raise linepool.ClientError(f"seat {seat} is not yours")
    seats.free(f"{show}:{seat}")
    return f"seat {seat} is free"


if __name__ == "__main__":
    linepool.run(app)
