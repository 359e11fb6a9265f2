"""Keys in a transaction: their headers, expiry and names, and their elements as a whole."""

from __future__ import annotations

from attrs import evolve
from layout import (
    LIST,
    STREAM,
    STRING,
    ZSET,
    Header,
    database_of,
    expiry_key,
    lmdb_name,
    pack_number,
    string_in,
    unpack_header,
    unpack_number,
)
from topics import entry_topic, gone_topic
from txn_base import BaseTxn

from linepool import ClientError

_WRONG_TYPE = "Operation against a key holding the wrong kind of value"


class KeysTxn(BaseTxn):
    """Reads and changes of keys."""

    def string(self, key: bytes) -> bytes | memoryview | None:
        """Return the value of a string, or None; a long one may be a view, valid until the next change.

        Raises:
            ClientError: The key is of another kind.
        """
        blob = self._get(lmdb_name(key), None, self._keys)
        if blob is None:
            return None
        if (value := string_in(blob)) is None:  # it may have expired, or be of another kind
            header = self.typed(key, STRING)
            return None if header is None else header.value
        return value

    def find(self, key: bytes) -> Header | None:
        """Return a key's header, or None if it does not exist or has expired."""
        blob = self._get(lmdb_name(key), None, self._keys)
        if blob is None:
            return None
        header = unpack_header(key, blob)
        if header.expires_at and header.expires_at <= self.now_ms:
            if self.writes:
                self._remove_expired(header)
            else:
                self._owner.expired.append((self.database, key))
            return None
        return header

    def typed(self, key: bytes, kind: int) -> Header | None:
        """Return a key's header if it is of the kind that a command is for.

        Raises:
            ClientError: The key is of another kind.
        """
        header = self.find(key)
        if header is not None and header.kind != kind:
            raise ClientError(_WRONG_TYPE, code="WRONGTYPE")
        return header

    def made(self, key: bytes, kind: int) -> Header:
        """Return a key's header, a new one if the key does not exist."""
        header = self.typed(key, kind)
        return header or Header(key, kind, self.next_number())

    def emptied(self, key: bytes, kind: int) -> Header:
        """Return the header for another value of a key: an empty collection, which does not expire."""
        header = self.find(key)
        if header is None:
            return Header(key, kind, self.next_number())
        self.clear(header)
        if header.expires_at:
            self._raw.delete(expiry_key(header, self.database), db=self._db.expiries)
        return evolve(header, kind=kind, count=0, value=b"", expires_at=0)

    def save(self, header: Header) -> None:
        """Store a changed header; an empty collection is deleted, unless it is a stream."""
        if header.kind not in (STRING, STREAM) and not header.count:
            self.remove(header)
            if header.version:
                self.notify("del", header.key)
            return
        self._is_changed = True
        if not header.version:  # it is new
            self.notify("new", header.key)
            if header.kind == STREAM:
                self.wake(entry_topic(self.database, header.key))
            self._raw.put(pack_number(header.id), header.key, db=self._ids)
        header.version = self.next_number()
        self._raw.put(lmdb_name(header.key), header.packed(), db=self._keys)

    def expire(self, header: Header, at_ms: int) -> None:
        """Set when a key expires (0: never), and save it."""
        self._is_changed = True
        if header.expires_at:
            self._raw.delete(expiry_key(header, self.database), db=self._db.expiries)
        header.expires_at = at_ms
        if at_ms:
            self._raw.put(expiry_key(header, self.database), header.key, db=self._db.expiries)
        self.save(header)

    def remove(self, header: Header) -> None:
        """Delete a key with all its elements."""
        self.clear(header)
        self.unlink(header)

    def unlink(self, header: Header) -> None:
        """Delete a key without its elements, which ``link`` may give another name."""
        self._is_changed = True
        if header.kind == STREAM:
            self.wake(gone_topic(self.database, header.key))
        if header.expires_at:
            self._raw.delete(expiry_key(header, self.database), db=self._db.expiries)
        self._raw.delete(lmdb_name(header.key), db=self._keys)
        self._raw.delete(pack_number(header.id), db=self._ids)

    def link(self, header: Header, key: bytes) -> None:
        """Give an unlinked value a name, which must be free."""
        header.key = key
        header.version = 0
        expires_at, header.expires_at = header.expires_at, 0
        self.expire(header, expires_at)
        if header.kind in (LIST, ZSET):
            self.came(header, header.count)

    def copied(self, header: Header) -> Header:
        """Return a copy of a key's value and expiry, for ``link``."""
        copy = evolve(header, id=self.next_number())
        self.copy_elements(header, copy)
        return copy

    def _tables(self, header: Header) -> tuple[object, ...]:
        """Return the tables with a key's elements."""
        if header.kind == STRING:
            return ()
        return (self._db.elements, self._db.scores)[: 1 + (header.kind == ZSET)]

    @property
    def _ids(self) -> object:
        return self._db.ids[self.database]

    def clear(self, header: Header) -> None:
        """Delete all elements of a key."""
        self._is_changed |= header.kind != STRING
        if header.kind == STREAM:
            self.wake(gone_topic(self.database, header.key))
        for table in self._tables(header):
            with self._raw.cursor(table) as cursor:
                more = cursor.set_range(header.prefix)
                while more and cursor.key().startswith(header.prefix):
                    more = cursor.delete()
        header.count = header.first = 0

    def copy_elements(self, header: Header, new: Header) -> None:
        """Copy all elements of a key, and its value, to a new key of its kind."""
        self._is_changed = True
        for table in self._tables(header):
            for key, value in self._range(table, header.prefix, pack_number(header.id + 1)):
                self._raw.put(new.prefix + key[len(header.prefix) :], value, db=table)
        new.value, new.count, new.first = header.value, header.count, header.first

    def _remove_expired(self, header: Header) -> None:
        """Delete a key that has expired: not a change of the command's."""
        was_changed = self._is_changed
        self.remove(header)
        self.notify("expired", header.key)
        self._is_changed = was_changed

    def _sweep(self, most: int) -> None:
        """Delete a few expired keys."""
        for _ in range(most):
            with self._raw.cursor(self._db.expiries) as cursor:
                if not cursor.first() or unpack_number(cursor.key()) > self.now_ms:
                    return
                database, key = database_of(cursor.key()), bytes(cursor.value())
            with self.within(database):
                self.find(key)
