"""A rate limiter for programs that have a client of Redis: a token bucket per key.

    linepool run examples/services/rate_limiter.py --bind 127.0.0.1:7000

TAKE KEY LIMIT SECONDS [COUNT] asks whether COUNT more calls are within LIMIT calls per SECONDS. Its reply is
[1 or 0, calls left, ms until COUNT calls are allowed].

All workers share an SQLite file: LIMITS names it, by default in memory (/dev/shm). The requests that
arrive together share one transaction.
"""

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Annotated

import linepool
from linepool import Range

app = linepool.App("rate limiter", protocol=linepool.Resp())
FILE = os.environ.get("LIMITS", "/dev/shm/limits.db")  # noqa: S108 - give another
Positive = Annotated[int, Range(1, 1_000_000)]


class Buckets:
    """When each key's bucket will be full again, in seconds since 1970: all that there is to know of it."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self.database = database

    def full_at(self, key: bytes) -> float:
        found = self.database.execute("SELECT full_at FROM bucket WHERE key = ?", (key,)).fetchone()
        return float(found[0]) if found else 0.0

    def set_full_at(self, key: bytes, moment: float) -> None:
        self.database.execute("REPLACE INTO bucket VALUES (?, ?)", (key, moment))


def connect() -> sqlite3.Connection:
    return sqlite3.connect(FILE, isolation_level=None)


@app.on_start
def create() -> None:
    with closing(connect()) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("CREATE TABLE IF NOT EXISTS bucket (key BLOB PRIMARY KEY, full_at REAL)")
        database.execute("DELETE FROM bucket WHERE full_at < ?", (time.time(),))


@app.resource
def database() -> Iterator[sqlite3.Connection]:
    with closing(connect()) as connection:
        connection.execute("PRAGMA synchronous = OFF")  # limits need not survive a power failure
        yield connection


@app.resource(scope="batch")
def buckets(database: sqlite3.Connection) -> Iterator[Buckets]:
    database.execute("BEGIN IMMEDIATE")  # one worker at a time from here on
    with database:
        yield Buckets(database)


@app.handler
def take(
    key: bytes, limit: Positive, seconds: Positive, buckets: Buckets, count: Positive = 1
) -> list[int]:
    """Take calls from a bucket: [allowed, calls left, ms to wait]."""
    if count > limit:
        raise linepool.ClientError(f"{count} calls are never within {limit} per {seconds} s")
    each, now = seconds / limit, time.time()
    full_at = max(now, buckets.full_at(key))
    after = full_at + count * each
    wait = after - seconds - now
    if wait > 0:
        return [0, int((now + seconds - full_at) / each), int(wait * 1000) + 1]
    buckets.set_full_at(key, after)
    return [1, int((now + seconds - after) / each), 0]


@app.handler
def reset(key: bytes, buckets: Buckets) -> bool:
    """Forget a key's calls."""
    was_full = buckets.full_at(key) <= time.time()
    buckets.set_full_at(key, 0.0)
    return not was_full


if __name__ == "__main__":
    linepool.run(app)
