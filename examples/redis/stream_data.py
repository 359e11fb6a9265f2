"""Streams in LMDB: their entries, by ID.

The name of a part of a stream begins with a letter: ``e`` and an ID, an entry; stream_group.py has the
others. What Redis keeps about the stream as a whole is the value of its header.
"""

from __future__ import annotations

import struct
from itertools import islice

from layout import STREAM, Header
from settings import get_setting
from stream_ids import LAST_SEQUENCE, MAX_ID, SEQUENCES
from topics import entry_topic
from transaction import Txn

from linepool import ClientError

Entry = tuple[int, list[bytes]]
_NODE_ENTRIES = "100"
_UNKNOWN = -1  # of the entries that a group has read
_FACTS = struct.Struct(">16s16sQ")  # the last ID, the last deleted one, the entries ever added
_COUNT = struct.Struct("<I")
_ID_BYTES = 16
_EXHAUSTED = "The stream has exhausted the last possible ID, unable to add more items"
_TOO_SMALL = "The ID specified in XADD is equal or smaller than the target stream top item"


def pack_id(number: int) -> bytes:
    """Return an ID as a part of LMDB keys, in whose order it is."""
    return number.to_bytes(_ID_BYTES, "big")


def unpack_id(blob: bytes) -> int:
    """Return a packed ID."""
    return int.from_bytes(blob, "big")


def pack_fields(fields: tuple[bytes, ...]) -> bytes:
    """Return the fields and values of an entry as they are stored: their lengths, then the texts."""
    count = len(fields)
    return struct.pack(f"<{count + 1}I", count, *map(len, fields)) + b"".join(fields)


def unpack_fields(blob: bytes) -> list[bytes]:
    """Return the fields and values of a stored entry."""
    (count,) = _COUNT.unpack_from(blob)
    at = _COUNT.size * (count + 1)
    fields = []
    for length in struct.unpack_from(f"<{count}I", blob, _COUNT.size):
        fields.append(blob[at : at + length])
        at += length
    return fields


class Stream:
    """A stream, within one command.

    Attributes:
        t: The transaction.
        header: Its header; ``count`` is the number of entries.
        last_id: The last ID that an entry was given, also if it is deleted.
        max_deleted_id: The greatest ID that XDEL has deleted; 0: none.
        entries_added: The number of entries that were ever added.
    """

    def __init__(self, t: Txn, header: Header) -> None:
        self.t = t
        self.header = header
        self.last_id = self.max_deleted_id = self.entries_added = 0
        if header.value:
            last, deleted, self.entries_added = _FACTS.unpack(header.value)
            self.last_id, self.max_deleted_id = unpack_id(last), unpack_id(deleted)

    @classmethod
    def find(cls, t: Txn, key: bytes) -> Stream | None:
        """Return the stream of a key, or None.

        Raises:
            ClientError: The key is of another kind.
        """
        header = t.typed(key, STREAM)
        return None if header is None else cls(t, header)

    @classmethod
    def made(cls, t: Txn, key: bytes) -> Stream:
        """Return the stream of a key, a new one if the key does not exist; raises as ``find``."""
        return cls(t, t.made(key, STREAM))

    @property
    def length(self) -> int:
        """The number of entries."""
        return self.header.count

    @property
    def node_entries(self) -> int:
        """How many entries near trimming removes at once: the setting stream-node-max-entries."""
        return int(get_setting(self.t, "stream-node-max-entries", _NODE_ENTRIES)) or self.length + 1

    def save(self) -> None:
        """Store what has changed of the stream as a whole."""
        self.header.value = _FACTS.pack(
            pack_id(self.last_id), pack_id(self.max_deleted_id), self.entries_added
        )
        self.t.save(self.header)

    def next_id(self, wanted: int | None, *, partial: bool) -> int:
        """Return the ID of the next entry.

        Args:
            wanted: The ID that the client wants; None: any.
            partial: Only its milliseconds are wanted.

        Raises:
            ClientError: It is not greater than the last one.
        """
        if self.last_id == MAX_ID:
            raise ClientError(_EXHAUSTED)
        if wanted is None:
            return max(self.t.now_ms * SEQUENCES, self.last_id + 1)
        if partial and wanted // SEQUENCES == self.last_id // SEQUENCES:
            wanted = self.last_id + 1 if self.last_id % SEQUENCES != LAST_SEQUENCE else 0
        if wanted <= self.last_id:
            raise ClientError(_TOO_SMALL)
        return wanted

    def append(self, number: int, fields: tuple[bytes, ...]) -> None:
        """Add an entry, whose ID must be greater than the last one."""
        self.t.set_part(self.header, b"e" + pack_id(number), pack_fields(fields))
        self.last_id = number
        self.header.count += 1
        self.entries_added += 1
        self.t.wake(entry_topic(self.t.database, self.header.key))

    def delete(self, number: int) -> bool:
        """Delete an entry; return whether it existed."""
        existed = self.t.drop_part(self.header, b"e" + pack_id(number))
        self.header.count -= existed
        return existed

    def entry(self, number: int) -> list[bytes] | None:
        """Return the fields and values of an entry, or None."""
        blob = self.t.part(self.header, b"e" + pack_id(number))
        return None if blob is None else unpack_fields(blob)

    def entries(
        self, first: int = 0, last: int = MAX_ID, count: int | None = None, *, reverse: bool = False
    ) -> list[Entry]:
        """Return the entries from one ID to another, both included, at most ``count``."""
        if first > last or not self.length:
            return []
        names = b"e" + pack_id(first), b"e" + pack_id(last)
        found = islice(self.t.parts(self.header, *names, reverse=reverse), count)
        return [(unpack_id(name[1:]), unpack_fields(blob)) for name, blob in found]

    def ids(self, first: int = 0, last: int = MAX_ID, count: int | None = None) -> list[int]:
        """Return the IDs of such entries."""
        found = self.t.parts(self.header, b"e" + pack_id(first), b"e" + pack_id(last))
        return [unpack_id(name[1:]) for name, _ in islice(found, count)]

    def first_id(self) -> int:
        """Return the ID of the first entry; 0: there is none."""
        return next(iter(self.ids(count=1)), 0)

    def top_id(self) -> int:
        """Return the ID of the last entry; 0: there is none."""
        found = self.t.parts(self.header, b"e", b"e" + pack_id(MAX_ID), reverse=True)
        return next((unpack_id(name[1:]) for name, _ in found), 0)

    def is_fragmented_from(self, number: int) -> bool:
        """Whether entries behind an ID have been deleted one by one."""
        deleted = self.max_deleted_id
        return deleted >= max(number, 1) and self.length > 0 and deleted >= self.first_id()

    def entries_up_to(self, number: int) -> int:
        """Return how many entries had been added when that with an ID had; -1: it is not known."""
        added = self.entries_added
        if not added or number == self.last_id or (not self.length and number < self.last_id):
            return added
        if number > self.last_id:
            return _UNKNOWN
        first = self.first_id()
        if self.max_deleted_id and self.max_deleted_id >= first:
            return _UNKNOWN
        if number > first:
            return _UNKNOWN
        return added - self.length + (number == first)
