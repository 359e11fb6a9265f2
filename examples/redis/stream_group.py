"""Consumer groups of streams in LMDB.

The parts of a stream that belong to its groups; G and C are the numbers of a group and of a consumer:

- ``g`` name: a group
- ``c G C``: a consumer
- ``n G`` name: the number of the consumer with that name
- ``p G`` ID: a pending entry, which is delivered and not acknowledged
- ``o G C`` ID: the same by its owner, without a value
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from attrs import define, field
from layout import INT64, lmdb_name, pack_number, unpack_number
from stream_data import Stream, pack_id, unpack_id
from stream_ids import MAX_ID
from topics import gone_topic, group_topic

from linepool import ClientError

_GROUP = struct.Struct(">Q16sqQ")
_CONSUMER = struct.Struct(">qqQ")
_PENDING = struct.Struct(">QqQ")
_BEHIND_NAMES = b"\2"  # greater than each name as it is stored


@define
class Consumer:
    """A consumer of a group.

    Attributes:
        name: Its name.
        number: What its parts are found by.
        seen_ms: When it last asked for entries.
        active_ms: When it last got some; -1: never.
        pending: The number of entries that it has not acknowledged.
    """

    name: bytes
    number: int
    seen_ms: int
    active_ms: int = -1
    pending: int = 0


@define
class Pending:
    """A pending entry.

    Attributes:
        owner: The number of the consumer that got it.
        at_ms: When it was last delivered.
        times: How often it was delivered.
    """

    owner: int
    at_ms: int
    times: int = 1


@define
class Group:
    """A consumer group of a stream, within one command; ``save`` stores what has changed of it.

    Attributes:
        stream: The stream.
        name: Its name.
        number: What its parts are found by.
        last_id: The last ID that was delivered.
        entries_read: How many entries had been added when that one had; -1: it is not known.
        pending: The number of pending entries.
    """

    stream: Stream
    name: bytes
    number: int
    last_id: int
    entries_read: int = -1
    pending: int = 0
    _consumers: dict[int, Consumer] = field(factory=dict, init=False)  # those looked at

    @classmethod
    def find(cls, stream: Stream | None, name: bytes) -> Group | None:
        """Return a group of a stream, or None."""
        if stream is None:
            return None
        blob = stream.t.part(stream.header, b"g" + lmdb_name(name))
        return None if blob is None else cls._unpacked(stream, blob)

    @classmethod
    def all(cls, stream: Stream) -> list[Group]:
        """Return all groups of a stream, by name."""
        found = stream.t.parts(stream.header, b"g", b"g" + _BEHIND_NAMES)
        return [cls._unpacked(stream, blob) for _, blob in found]

    @classmethod
    def wake_all(cls, stream: Stream) -> None:
        """Wake a consumer of each group that waits for entries."""
        for group in cls.all(stream):
            stream.t.wake(group_topic(stream.t.database, stream.header.key, group.name), 1)

    @classmethod
    def create(cls, stream: Stream, name: bytes, last_id: int, entries_read: int) -> None:
        """Store a new group."""
        group = cls(stream, name, stream.t.next_number(), last_id, entries_read)
        group.save()
        group._notify("xgroup-create")

    @classmethod
    def _unpacked(cls, stream: Stream, blob: bytes) -> Group:
        number, last_id, entries_read, pending = _GROUP.unpack_from(blob)
        name = blob[_GROUP.size :]
        return cls(stream, name, number, unpack_id(last_id), entries_read, pending)

    def save(self) -> None:
        """Store the group, and its consumers that were looked at."""
        facts = _GROUP.pack(self.number, pack_id(self.last_id), self.entries_read, self.pending)
        self._put(b"g" + lmdb_name(self.name), facts + self.name)
        for one in self._consumers.values():
            facts = _CONSUMER.pack(one.seen_ms, one.active_ms, one.pending)
            self._put(self._consumer_key(one.number), facts + one.name)

    def destroy(self) -> None:
        """Delete the group with all that belongs to it."""
        t, header = self.stream.t, self.stream.header
        for kind in (b"c", b"n", b"p", b"o"):
            first, behind = kind + pack_number(self.number), kind + pack_number(self.number + 1)
            for name in [name for name, _ in t.parts(header, first, behind)]:
                t.drop_part(header, name)
        t.drop_part(header, b"g" + lmdb_name(self.name))
        t.wake(gone_topic(t.database, header.key))
        self._notify("xgroup-destroy")

    def _notify(self, event: str) -> None:
        self.stream.t.notify(event, self.stream.header.key)

    def lag(self) -> int | None:
        """Return how many entries are still to be delivered, or None if that is not known."""
        added = self.stream.entries_added
        if not added:
            return 0
        if self.entries_read >= 0 and not self.stream.is_fragmented_from(self.last_id):
            return added - self.entries_read
        read = self.stream.entries_up_to(self.last_id)
        return None if read < 0 else added - read

    def advance(self, number: int) -> None:
        """Note that an entry was delivered, if it is a later one."""
        if number <= self.last_id:
            return
        if self.entries_read >= 0 and not self.stream.is_fragmented_from(number):
            self.entries_read = min(self.entries_read + 1, INT64[-1])
        elif self.stream.entries_added:
            self.entries_read = self.stream.entries_up_to(number)
        self.last_id = number

    # Consumers.

    def consumer(self, name: bytes) -> Consumer | None:
        """Return a consumer, or None."""
        blob = self._get(self._name_key(name))
        return None if blob is None else self.numbered(unpack_number(blob))

    def numbered(self, number: int) -> Consumer:
        """Return the consumer that a number belongs to."""
        found = self._consumers.get(number)
        if found is None:
            blob = self._get(self._consumer_key(number))
            assert blob is not None
            seen, active, pending = _CONSUMER.unpack_from(blob)
            found = Consumer(blob[_CONSUMER.size :], number, seen, active, pending)
            self._consumers[number] = found
        return found

    def seen(self, name: bytes) -> Consumer:
        """Return the consumer that asks for entries now, a new one if it does not exist."""
        found = self.consumer(name)
        if found is None:
            return self.new_consumer(name)
        found.seen_ms = self.stream.t.now_ms
        return found

    def new_consumer(self, name: bytes) -> Consumer:
        """Return a new consumer, whose name must not exist."""
        found = Consumer(name, self.stream.t.next_number(), self.stream.t.now_ms)
        self._consumers[found.number] = found
        self._put(self._name_key(name), pack_number(found.number))
        self._notify("xgroup-createconsumer")
        return found

    def consumers(self) -> list[Consumer]:
        """Return all consumers, by name."""
        prefix = b"n" + pack_number(self.number)
        found = self.stream.t.parts(self.stream.header, prefix, prefix + _BEHIND_NAMES)
        return [self.numbered(unpack_number(blob)) for _, blob in found]

    def remove_consumer(self, consumer: Consumer) -> None:
        """Delete a consumer; the entries that it has not acknowledged are no longer pending."""
        for number in list(self.owned(consumer)):
            self._drop(self._pending_key(number))
            self._drop(self._owned_key(consumer.number, number))
            self.pending -= 1
        self._drop(self._name_key(consumer.name))
        self._drop(self._consumer_key(consumer.number))
        del self._consumers[consumer.number]
        self._notify("xgroup-delconsumer")

    # Pending entries.

    def pending_entry(self, number: int) -> Pending | None:
        """Return what is known of a pending entry, or None."""
        blob = self._get(self._pending_key(number))
        return None if blob is None else Pending(*_PENDING.unpack(blob))

    def pending_entries(
        self, first: int = 0, last: int = MAX_ID, *, reverse: bool = False
    ) -> Iterator[tuple[int, Pending]]:
        """Yield the pending entries from one ID to another, both included."""
        names = self._pending_key(first), self._pending_key(last)
        for name, blob in self.stream.t.parts(self.stream.header, *names, reverse=reverse):
            yield unpack_id(name[-16:]), Pending(*_PENDING.unpack(blob))

    def owned(self, consumer: Consumer, first: int = 0, last: int = MAX_ID) -> Iterator[int]:
        """Yield the IDs that a consumer has not acknowledged."""
        names = (self._owned_key(consumer.number, one) for one in (first, last))
        for name, _ in self.stream.t.parts(self.stream.header, *names):
            yield unpack_id(name[-16:])

    def pending_of(
        self, consumer: Consumer, first: int = 0, last: int = MAX_ID
    ) -> Iterator[tuple[int, Pending]]:
        """Yield the pending entries of a consumer from one ID to another, both included."""
        for number in self.owned(consumer, first, last):
            if pending := self.pending_entry(number):
                yield number, pending

    def hand_out(self, number: int, consumer: Consumer, at_ms: int, times: int = 1) -> None:
        """Make an entry pending for a consumer, also if it was for another one."""
        old = self.pending_entry(number)
        if old is not None and old.owner != consumer.number:
            self.settle(number, old)
            old = None
        if old is None:
            self._put(self._owned_key(consumer.number, number), b"")
            consumer.pending += 1
            self.pending += 1
        self._put(self._pending_key(number), _PENDING.pack(consumer.number, at_ms, times))

    def settle(self, number: int, pending: Pending) -> None:
        """Make an entry no longer pending."""
        self._drop(self._pending_key(number))
        self._drop(self._owned_key(pending.owner, number))
        self.numbered(pending.owner).pending -= 1
        self.pending -= 1

    # Parts.

    def _name_key(self, name: bytes) -> bytes:
        return b"n" + pack_number(self.number) + lmdb_name(name)

    def _consumer_key(self, number: int) -> bytes:
        return b"c" + pack_number(self.number) + pack_number(number)

    def _pending_key(self, number: int) -> bytes:
        return b"p" + pack_number(self.number) + pack_id(number)

    def _owned_key(self, consumer: int, number: int) -> bytes:
        return b"o" + pack_number(self.number) + pack_number(consumer) + pack_id(number)

    def _get(self, name: bytes) -> bytes | None:
        return self.stream.t.part(self.stream.header, name)

    def _put(self, name: bytes, value: bytes) -> None:
        self.stream.t.set_part(self.stream.header, name, value)

    def _drop(self, name: bytes) -> None:
        self.stream.t.drop_part(self.stream.header, name)


def no_group(key: bytes, group: bytes, where: str = "") -> ClientError:
    """Return the error for a key or a group that does not exist."""
    text = f"No such key '{name_text(key)}' or consumer group '{name_text(group)}'{where}"
    return ClientError(text, code="NOGROUP")


def name_text(name: bytes) -> str:
    """Return a name for the text of an error."""
    return name.decode(errors="replace")
