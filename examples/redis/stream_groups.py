"""Commands for consumer groups of streams: XGROUP, XACK, XPENDING."""

from __future__ import annotations

from itertools import islice
from typing import Any

from application import app
from attrs import define
from db import Db
from stream_data import Stream
from stream_group import Group, name_text, no_group
from stream_ids import parse_bound, parse_id, shown
from streams import integer, wrong_words
from transaction import Txn

from linepool import ClientError
from linepool.protocols.resp import OK, NullArray, Status

_SYNTAX = "syntax error"
_NO_KEY = (
    "The XGROUP subcommand requires the key to exist. Note that for CREATE you may want to use the"
    " MKSTREAM option to create an empty stream automatically."
)


@app.handler("XGROUP|CREATE", flags="write denyoom")
def create_group(key: bytes, group: bytes, after: bytes, *words: bytes, db: Db) -> Status:
    """Create a group that reads behind an ID: key group id|$ [MKSTREAM] [ENTRIESREAD n]."""
    makes, entries_read = _options(words, "XGROUP|CREATE")
    with db.write() as t:
        stream = Stream.find(t, key)
        if stream is None and not makes:
            raise ClientError(_NO_KEY)
        if len(words) > 3:
            raise wrong_words("XGROUP|CREATE")
        stream = stream or Stream.made(t, key)
        last_id = stream.last_id if after == b"$" else parse_id(after)
        if Group.find(stream, group):
            raise ClientError("Consumer Group name already exists", code="BUSYGROUP")
        if not stream.header.version:
            stream.save()
        Group.create(stream, group, last_id, entries_read)
    return OK


@app.handler("XGROUP|SETID", flags="write")
def set_group_id(key: bytes, group: bytes, after: bytes, *words: bytes, db: Db) -> Status:
    """Set the ID behind which a group reads: key group id|$ [ENTRIESREAD n]."""
    _, entries_read = _options(words, "XGROUP|SETID")
    with db.write() as t:
        found = _group(t, key, group)
        if len(words) > 2:
            raise wrong_words("XGROUP|SETID")
        if after == b"$":
            found.last_id = found.stream.last_id
        elif after in (b"-", b"+"):
            found.last_id = parse_bound(after, upper=False)
        else:
            found.last_id = parse_id(after)
        found.entries_read = entries_read
        found.save()
        t.notify("xgroup-setid", key)
    return OK


def _options(words: tuple[bytes, ...], command: str) -> tuple[bool, int]:
    """Return whether the stream is made, and how many entries the group has read; -1: not given."""
    makes = False
    entries_read = -1
    at = 0
    while at < len(words):
        option = words[at].upper()
        if option == b"MKSTREAM" and command == "XGROUP|CREATE":
            makes = True
        elif option == b"ENTRIESREAD" and at + 1 < len(words):
            entries_read = integer(words[at + 1])
            if entries_read < -1:
                raise ClientError("value for ENTRIESREAD must be positive or -1")
            at += 1
        else:
            raise wrong_words(command)
        at += 1
    return makes, entries_read


def _group(t: Txn, key: bytes, name: bytes) -> Group:
    stream = Stream.find(t, key)
    if stream is None:
        raise ClientError(_NO_KEY)
    group = Group.find(stream, name)
    if group is None:
        raise no_such_group(key, name)
    return group


@app.handler("XGROUP|DESTROY", flags="write")
def destroy_group(key: bytes, group: bytes, db: Db) -> int:
    """Delete a group; return 1 if it existed."""
    with db.write() as t:
        stream = Stream.find(t, key)
        if stream is None:
            raise ClientError(_NO_KEY)
        found = Group.find(stream, group)
        if found is None:
            return 0
        found.destroy()
        return 1


@app.handler("XGROUP|CREATECONSUMER", flags="write denyoom")
def create_consumer(key: bytes, group: bytes, consumer: bytes, db: Db) -> int:
    """Create a consumer of a group; return 1 if it is new."""
    with db.write() as t:
        found = _group(t, key, group)
        if found.consumer(consumer):
            return 0
        found.new_consumer(consumer)
        found.save()
        return 1


@app.handler("XGROUP|DELCONSUMER", flags="write")
def delete_consumer(key: bytes, group: bytes, consumer: bytes, db: Db) -> int:
    """Delete a consumer; return how many entries it had not acknowledged, which are no longer pending."""
    with db.write() as t:
        found = _group(t, key, group)
        old = found.consumer(consumer)
        if old is None:
            return 0
        found.remove_consumer(old)
        found.save()
        return old.pending


@app.handler(flags="write fast")
def xack(key: bytes, group: bytes, first: bytes, *more: bytes, db: Db) -> int:
    """Acknowledge entries; return how many were pending."""
    with db.write() as t:
        found = Group.find(Stream.find(t, key), group)
        if found is None:
            return 0
        count = 0
        for number in [parse_id(one) for one in (first, *more)]:
            if pending := found.pending_entry(number):
                found.settle(number, pending)
                count += 1
        if count:
            found.save()
        return count


@app.handler(flags="readonly")
def xpending(key: bytes, group: bytes, *words: bytes, db: Db) -> list[Any]:
    """Count or list pending entries: XPENDING key group [[IDLE ms] start end count [consumer]]."""
    wanted = _parse_interval(words) if words else None
    with db.read() as t:
        found = Group.find(Stream.find(t, key), group)
        if found is None:
            raise no_group(key, group)
        return _pending_rows(found, wanted) if wanted else _pending_summary(found)


@define
class Interval:
    """Which pending entries an XPENDING lists."""

    min_idle_ms: int
    first: int
    last: int
    count: int
    consumer: bytes | None


def _parse_interval(words: tuple[bytes, ...]) -> Interval:
    if not 3 <= len(words) <= 6:
        raise ClientError(_SYNTAX)
    min_idle_ms = 0
    if words[0].upper() == b"IDLE":
        min_idle_ms = integer(words[1])
        words = words[2:]
    if len(words) < 3:
        raise ClientError(_SYNTAX)
    count = max(0, integer(words[2]))
    first, last = parse_bound(words[0], upper=False), parse_bound(words[1], upper=True)
    return Interval(min_idle_ms, first, last, count, words[3] if len(words) > 3 else None)


def _pending_summary(group: Group) -> list[Any]:
    if not group.pending:
        return [0, None, None, NullArray()]
    first, _ = next(group.pending_entries())
    last, _ = next(group.pending_entries(reverse=True))
    owners = [[one.name, str(one.pending)] for one in group.consumers() if one.pending]
    return [group.pending, shown(first), shown(last), owners]


def _pending_rows(group: Group, wanted: Interval) -> list[Any]:
    now = group.stream.t.now_ms
    entries = group.pending_entries(wanted.first, wanted.last)
    if wanted.consumer is not None:
        consumer = group.consumer(wanted.consumer)
        if consumer is None:
            return []
        entries = group.pending_of(consumer, wanted.first, wanted.last)
    found = (
        [shown(number), group.numbered(one.owner).name, max(0, now - one.at_ms), one.times]
        for number, one in entries
        if not wanted.min_idle_ms or now - one.at_ms >= wanted.min_idle_ms
    )
    return list(islice(found, wanted.count))


def no_such_group(key: bytes, group: bytes) -> ClientError:
    """Return the error of XGROUP and XINFO for a group that a stream does not have."""
    text = f"No such consumer group '{name_text(group)}' for key name '{name_text(key)}'"
    return ClientError(text, code="NOGROUP")
