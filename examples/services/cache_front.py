"""A cache in front of a slow HTTP service: many clients may ask for a page, one of them fetches it.

    ORIGIN=http://127.0.0.1:8000/ linepool run examples/services/cache_front.py --bind 127.0.0.1:7000

FETCH PATH is answered from the cache for FRESH_S seconds (60). If the page is not there, the first request
that finds this out fetches it; others for the same page wait for that, in whichever worker they are. If
the worker that fetches dies, the kernel takes its lock away, and the next one that waits fetches.

All workers share an SQLite file: CACHE names it, by default cache.db in the working directory. Locks are
those of one byte for each page in the file CACHE.lock (fcntl(2)).
"""

import fcntl
import os
import sqlite3
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager

import linepool

app = linepool.App("cache", request_timeout=60)
FILE = os.path.abspath(os.environ.get("CACHE", "cache.db"))
ORIGIN = os.environ.get("ORIGIN", "http://127.0.0.1:8000/")
FRESH_S = float(os.environ.get("FRESH_S", "60"))


class Pages:
    """The pages that have been fetched, and a lock for each that is being fetched."""

    def __init__(self, database: sqlite3.Connection, lock_file: int) -> None:
        self.database = database
        self.lock_file = lock_file

    def find(self, path: str) -> str | None:
        found = self.database.execute(
            "SELECT text FROM page WHERE path = ? AND at > ?", (path, time.time() - FRESH_S)
        ).fetchone()
        return found and str(found[0])

    def keep(self, path: str, text: str) -> None:
        self.database.execute("REPLACE INTO page VALUES (?, ?, ?)", (path, text, time.time()))

    @contextmanager
    def fetching(self, path: str) -> Iterator[None]:
        """Wait until no other worker fetches this page."""
        place = zlib.crc32(path.encode())  # two pages with one lock only wait for each other
        fcntl.lockf(self.lock_file, fcntl.LOCK_EX, 1, place)
        try:
            yield
        finally:
            fcntl.lockf(self.lock_file, fcntl.LOCK_UN, 1, place)


def connect() -> sqlite3.Connection:
    return sqlite3.connect(FILE, isolation_level=None)


@app.on_start
def create() -> None:
    with closing(connect()) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("CREATE TABLE IF NOT EXISTS page (path TEXT PRIMARY KEY, text, at REAL)")


@app.resource
def pages() -> Iterator[Pages]:
    with closing(connect()) as database, open(FILE + ".lock", "w") as lock_file:
        yield Pages(database, lock_file.fileno())


def fetch_from_origin(path: str) -> str:
    try:
        with urllib.request.urlopen(ORIGIN + path, timeout=30) as response:  # noqa: S310 - of its own
            return str(response.read().decode())
    except (urllib.error.URLError, TimeoutError) as error:
        raise linepool.ServerError(f"the origin has no {path}: {error}") from None


@app.handler
def fetch(path: str, pages: Pages) -> list[str]:
    """Show a page, from the cache if it is there."""
    text = pages.find(path)
    if text is None:
        with pages.fetching(path):
            text = pages.find(path)  # another worker may have fetched it meanwhile
            if text is None:
                text = fetch_from_origin(path)
                pages.keep(path, text)
    return text.splitlines()


if __name__ == "__main__":
    linepool.run(app)
