"""XINFO: facts about streams, their groups and consumers."""

from __future__ import annotations

from itertools import islice
from typing import Any

from application import app
from db import Db
from stream_data import Stream
from stream_group import Consumer, Group
from stream_groups import no_such_group
from stream_ids import shown
from streams import Row, integer, rows, wrong_words
from transaction import Txn

from linepool import ClientError


@app.handler("XINFO|GROUPS", flags="readonly")
def describe_groups(key: bytes, db: Db) -> list[dict[str, Any]]:
    """Describe the groups of a stream."""
    with db.read() as t:
        return [_group_facts(group) for group in Group.all(_stream(t, key))]


@app.handler("XINFO|CONSUMERS", flags="readonly")
def describe_consumers(key: bytes, group: bytes, db: Db) -> list[dict[str, Any]]:
    """Describe the consumers of a group."""
    with db.read() as t:
        found = Group.find(_stream(t, key), group)
        if found is None:
            raise no_such_group(key, group)
        return [_consumer_facts(one, t.now_ms) for one in found.consumers()]


@app.handler("XINFO|STREAM", flags="readonly")
def describe_stream(key: bytes, *words: bytes, db: Db) -> dict[str, Any]:
    """Describe a stream: key [FULL [COUNT n]]; FULL: with its groups and what is pending."""
    with db.read() as t:
        stream = _stream(t, key)
        return _full(stream, _parse_full(words)) if words else _summary(stream)


def _stream(t: Txn, key: bytes) -> Stream:
    stream = Stream.find(t, key)
    if stream is None:
        raise ClientError("no such key")
    return stream


def _group_facts(group: Group) -> dict[str, Any]:
    return {
        "name": group.name,
        "consumers": len(group.consumers()),
        "pending": group.pending,
        **_progress(group),
    }


def _progress(group: Group) -> dict[str, Any]:
    return {
        "last-delivered-id": shown(group.last_id),
        "entries-read": group.entries_read if group.entries_read >= 0 else None,
        "lag": group.lag(),
    }


def _consumer_facts(consumer: Consumer, now_ms: int) -> dict[str, Any]:
    active_ms = consumer.active_ms
    return {
        "name": consumer.name,
        "pending": consumer.pending,
        "idle": max(0, now_ms - consumer.seen_ms),
        "inactive": -1 if active_ms < 0 else max(0, now_ms - active_ms),
    }


def _summary(stream: Stream) -> dict[str, Any]:
    first, last = rows(stream.entries(count=1)), rows(stream.entries(count=1, reverse=True))
    return {
        **_stream_facts(stream),
        "groups": len(Group.all(stream)),
        "first-entry": first[0] if first else None,
        "last-entry": last[0] if last else None,
    }


def _stream_facts(stream: Stream) -> dict[str, Any]:
    nodes = -(-stream.length // stream.node_entries)  # as many as Redis has of short entries
    return {
        "length": stream.length,
        "radix-tree-keys": nodes,
        "radix-tree-nodes": nodes + 1,
        "last-generated-id": shown(stream.last_id),
        "max-deleted-entry-id": shown(stream.max_deleted_id),
        "entries-added": stream.entries_added,
        "recorded-first-entry-id": shown(stream.first_id()),
    }


def _parse_full(words: tuple[bytes, ...]) -> int | None:
    """Return how many entries XINFO STREAM key FULL [COUNT n] shows; None: all."""
    if len(words) not in (1, 3) or words[0].upper() != b"FULL":
        raise wrong_words("XINFO|STREAM")
    if len(words) == 1:
        return 10
    if words[1].upper() != b"COUNT":
        raise wrong_words("XINFO|STREAM")
    count = integer(words[2])
    return (count or None) if count >= 0 else 10


def _full(stream: Stream, count: int | None) -> dict[str, Any]:
    return {
        **_stream_facts(stream),
        "entries": rows(stream.entries(count=count)),
        "groups": [_full_group(group, count) for group in Group.all(stream)],
    }


def _full_group(group: Group, count: int | None) -> dict[str, Any]:
    pending: list[Row] = [
        [shown(number), group.numbered(one.owner).name, one.at_ms, one.times]
        for number, one in islice(group.pending_entries(), count)
    ]
    return {
        "name": group.name,
        **_progress(group),
        "pel-count": group.pending,
        "pending": pending,
        "consumers": [_full_consumer(group, one, count) for one in group.consumers()],
    }


def _full_consumer(group: Group, consumer: Consumer, count: int | None) -> dict[str, Any]:
    pending: list[Row] = [
        [shown(number), one.at_ms, one.times]
        for number, one in islice(group.pending_of(consumer), count)
    ]
    return {
        "name": consumer.name,
        "seen-time": consumer.seen_ms,
        "active-time": consumer.active_ms,
        "pel-count": consumer.pending,
        "pending": pending,
    }
