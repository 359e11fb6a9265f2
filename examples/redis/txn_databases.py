"""Whole databases in a transaction."""

from __future__ import annotations

from collections.abc import Iterator

from layout import (
    DATABASES,
    Header,
    database_of,
    lmdb_name,
    pack_number,
    unpack_header,
    unpack_number,
)
from topics import FLUSHED
from txn_keys import KeysTxn


class DatabasesTxn(KeysTxn):
    """Reads and changes of whole databases."""

    def all_keys(self, after: int = 0) -> Iterator[tuple[int, Header]]:
        """Yield the keys that have not expired, by their numbers, from the one after ``after``."""
        for header in self._headers(after):
            if not 0 < header.expires_at <= self.now_ms:
                yield header.id, header

    def _headers(self, after: int = 0) -> Iterator[Header]:
        with self._raw.cursor(self._ids) as cursor:
            if not cursor.set_range(pack_number(after + 1)):
                return
            for key in cursor.iternext(keys=False, values=True):
                yield unpack_header(key, self._get(lmdb_name(bytes(key)), None, self._keys))

    def count(self) -> int:
        """Return the number of keys that have not expired."""
        expired = 0
        with self._raw.cursor(self._db.expiries) as cursor:
            for key in cursor.iternext(keys=True, values=False):
                if unpack_number(key) > self.now_ms:
                    break
                expired += database_of(key) == self.database
        return self._size(self.database) - expired

    def _size(self, database: int) -> int:
        """Return the number of keys of a database, those that have expired among them."""
        return int(self._raw.stat(self._db.ids[database])["entries"])

    def sizes(self) -> list[tuple[int, int]]:
        """Return for each database how many keys it has, and how many of them expire some time."""
        counts = [self._size(number) for number in range(DATABASES)]
        total = int(self._raw.stat(self._db.expiries)["entries"])
        if total and sum(map(bool, counts)) == 1:
            return [(count, total if count else 0) for count in counts]
        expires = [0] * DATABASES
        if total:
            with self._raw.cursor(self._db.expiries) as cursor:
                for key in cursor.iternext(keys=True, values=False):
                    expires[database_of(key)] += 1
        return list(zip(counts, expires, strict=True))

    def drop_all(self) -> None:
        """Delete every key of all databases."""
        self._is_changed = True
        self.wake(FLUSHED)
        db = self._db
        for table in (*db.keys, *db.ids, db.elements, db.scores, db.expiries):
            self._raw.drop(table, delete=False)

    def drop_database(self) -> None:
        """Delete every key of the database."""
        if not any(self._size(number) for number in range(DATABASES) if number != self.database):
            self.drop_all()
            return
        for header in list(self._headers()):
            self.remove(header)

    def swap(self, first: int, second: int) -> None:
        """Exchange the keys of two databases."""
        found = []
        letters, self.notified = self.notified, ""  # no event is sent for their keys
        for source, target in ((first, second), (second, first)):
            with self.within(source):
                found.append((target, list(self._headers())))
                for header in found[-1][1]:
                    self.unlink(header)
        for target, headers in found:
            with self.within(target):
                for header in headers:
                    self.link(header, header.key)
        self.notified = letters
