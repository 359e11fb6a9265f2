"""Prices for everybody, and an admin port beside them: two apps that the same workers serve.

Start it with ``linepool run prices.py:shop prices.py:admin``, or as a script.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from decimal import Decimal
from typing import Annotated

import linepool

store = linepool.App("store")
shop = linepool.App(bind="127.0.0.1:7000")
admin = linepool.App(bind="unix:@prices-admin", max_line_bytes=256)


@store.resource
def database() -> Iterator[sqlite3.Connection]:
    """One connection per worker and app; what one app has changed, the other sees."""
    database = sqlite3.connect(os.environ.get("PRICES", "prices.db"), isolation_level=None)
    database.execute("CREATE TABLE IF NOT EXISTS prices (item TEXT PRIMARY KEY, price TEXT)")
    yield database
    database.close()


@store.handler
def price(item: str, database: sqlite3.Connection) -> Decimal:
    """Say what an item costs."""
    row = database.execute("SELECT price FROM prices WHERE item = ?", (item,)).fetchone()
    if row is None:
        raise linepool.ClientError(f"unknown item {item}")
    return Decimal(row[0])


shop.include(store)
admin.include(store)


@admin.handler
def set_(
    item: str, price: Annotated[Decimal, linepool.Range(min=0)], database: sqlite3.Connection
) -> None:
    """Give an item a price."""
    database.execute("INSERT OR REPLACE INTO prices VALUES (?, ?)", (item, str(price)))


@admin.handler
def forget(item: str, database: sqlite3.Connection) -> int:
    """Remove an item; say how many there were."""
    return database.execute("DELETE FROM prices WHERE item = ?", (item,)).rowcount


if __name__ == "__main__":
    linepool.run(shop, admin)
