"""The app of torture_waiting.py: queues in a database; an item has the worker and the client that took it."""

from __future__ import annotations

import os
import sqlite3
from collections import Counter
from collections.abc import Iterator

import linepool

_TABLE = "create table if not exists items(id integer primary key, queue text, pid int, client int)"
_TAKE = """update items set pid = ?, client = ? where id =
    (select min(id) from items where queue = ? and pid is null) returning id"""


class Store:
    """The queues; each change is a transaction, which a killed worker has committed or not begun."""

    def __init__(self) -> None:
        self._base = sqlite3.connect("items", timeout=60, isolation_level=None)
        self._base.execute("pragma journal_mode = wal")
        self._base.execute("pragma synchronous = off")
        self._base.execute(_TABLE)
        self._base.execute("create index if not exists free on items(queue, id) where pid is null")

    def put(self, items: list[tuple[str, int]]) -> None:
        """Add items to queues."""
        self._base.execute("begin immediate")
        self._base.executemany("insert into items(queue, id) values (?, ?)", items)
        self._base.execute("commit")

    def take(self, queue: str, client: int) -> int | None:
        """Take the first item of a queue for a client; None: there is none."""
        found = self._base.execute(_TAKE, (os.getpid(), client, queue)).fetchall()
        return found[0][0] if found else None

    def close(self) -> None:
        """Close it."""
        self._base.close()


@linepool.resource
def store() -> Iterator[Store]:
    """Give the queues."""
    store = Store()
    yield store
    store.close()


@linepool.handler
def take(client: int, timeout: float, store: Store, *queues: str) -> int | str | linepool.Wait:
    """Take an item for a client, or wait for one."""
    for queue in queues:
        if (item := store.take(queue, client)) is not None:
            return item
    return linepool.Wait(*queues, timeout=timeout, then="none")


def _put(store: Store, words: tuple[str, ...]) -> Counter[str]:
    """Add the items QUEUE:NUMBER; return how many each queue got."""
    items = [(queue, int(number)) for queue, _, number in (word.partition(":") for word in words)]
    store.put(items)
    return Counter(queue for queue, _ in items)


@linepool.handler
def put(store: Store, waiters: linepool.Waiters, *items: str) -> int:
    """Add items, and wake a request for each."""
    for queue, count in _put(store, items).items():
        waiters.notify(queue, count)
    return len(items)


@linepool.handler
def shout(store: Store, waiters: linepool.Waiters, *items: str) -> int:
    """Add items, and wake all requests that wait for their queues."""
    for queue in _put(store, items):
        waiters.publish(queue)
    return len(items)
