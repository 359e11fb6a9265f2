"""What the parts of a transaction share: LMDB's transaction, notes, numbers, and what a commit reports."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import lmdb
from layout import Header, unpack_number
from notifications import CLASS_OF, SETTING, Event, wanted
from settings import get_setting
from topics import Woken, add_wake

if TYPE_CHECKING:
    from db import Db
    from key_store import Store


class BaseTxn:
    """The base of ``Txn`` and of its parts.

    Attributes:
        writes: It can write.
        database: The number of the database whose keys are meant.
        events: What was done to keys, as far as notifications want it.
        notified: The letters of the setting for notifications; None: not yet known.
        woken: How many requests are to be woken, by topic, when it is committed; None: all.
    """

    # ``Txn.__init__`` sets these itself: it runs for each batch, and a call of this class would cost time.
    writes: bool
    database: int
    _db: Store
    _owner: Db
    _raw: lmdb.Transaction
    _get: Callable[..., Any]
    _keys: object

    # Most commands do not change these, so a transaction need not set them.
    events: list[Event] | None = None
    notified: str | None = None
    woken: Woken | None = None
    arrived: dict[tuple[int, int, bytes], int] | None = None  # elements, by kind, database and key
    _now_ms = 0  # of the present command; 0: not yet known
    _number = 0  # the last one that was used; 0: not yet known
    _is_changed = False  # by the present command

    def select(self, database: int) -> None:
        """Use the keys of another database."""
        self.database = database
        self._keys = self._db.keys[database]

    @contextlib.contextmanager
    def within(self, database: int) -> Iterator[None]:
        """Use the keys of another database in the block."""
        before = self.database
        self.select(database)
        try:
            yield
        finally:
            self.select(before)

    @property
    def now_ms(self) -> int:
        """The time of the command; Unix time in ms."""
        if not self._now_ms:
            self._now_ms = time.time_ns() // 1_000_000
        return self._now_ms

    def came(self, header: Header, count: int) -> None:
        """Wake requests that wait for elements of a list or a sorted set: one for each that has come."""
        if count:
            if self.arrived is None:
                self.arrived = {}
            place = header.kind, self.database, header.key
            self.arrived[place] = self.arrived.get(place, 0) + count

    def notify(self, event: str, key: bytes) -> None:
        """Have subscribers told what was done to a key, when it has been committed."""
        letters = self.notified
        if letters is None:
            letters = self.notified = wanted(get_setting(self, SETTING))
        if letters and CLASS_OF[event] in letters:
            if self.events is None:
                self.events = []
            self.events.append((self.database, event, key))

    def wake(self, topic: bytes, count: int | None = None) -> None:
        """Wake requests that wait for a topic, when this is committed; None: all of them."""
        if self.woken is None:
            self.woken = {}
        add_wake(self.woken, topic, count)

    def note(self, name: bytes) -> bytes | None:
        """Return a note, which is not a key, or None."""
        blob = self._get(name)
        return None if blob is None else bytes(blob)

    def set_note(self, name: bytes, value: bytes) -> None:
        """Store a note."""
        self._is_changed = True
        self._raw.put(name, value)

    def scripts(self, *, write: bool) -> tuple[lmdb.Transaction, object]:
        """Return LMDB's transaction, and the table of scripts."""
        self._is_changed |= write
        return self._raw, self._db.scripts

    def next_number(self) -> int:
        """Return a number that was never returned before."""
        self._number = number = self.last_number() + 1
        return number

    def last_number(self) -> int:
        """Return the last number that ``next_number`` returned."""
        if self._number:
            return self._number
        blob = self._get(b"number")
        return unpack_number(blob) if blob else 0

    def _range(
        self, table: object, first: bytes, last: bytes, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        with self._raw.cursor(table) as cursor:
            if not reverse:
                found = cursor.set_range(first)
            elif found := cursor.set_range(last):
                found = bytes(cursor.key()) == last or cursor.prev()
            else:
                found = cursor.last()
            items = cursor.iterprev if reverse else cursor.iternext
            for key, value in items() if found else ():
                name = bytes(key)
                if not first <= name <= last:
                    return
                yield name, bytes(value)
