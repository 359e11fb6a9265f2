"""XREAD and XREADGROUP."""

from __future__ import annotations

from itertools import islice

from application import app
from attrs import define, field
from db import Db
from layout import INT64, STREAM
from stream_data import Stream
from stream_group import Consumer, Group, no_group
from stream_ids import MAX_ID, parse_id, shown
from streams import Row, integer, rows
from topics import FLUSHED, entry_topic, gone_topic, group_topic
from transaction import Txn

import linepool
from linepool import ClientError
from linepool.protocols.resp import NullArray, PerVersion

Found = PerVersion | NullArray
_MOST_TOPICS = 62  # of one request; CLIENT UNBLOCK has two more
NEW = MAX_ID  # the ID ``>``: what the group has not yet delivered
_NO_DOLLAR = (
    "The $ ID is meaningless in the context of XREADGROUP: you want to read the history of this"
    " consumer by specifying a proper ID, or use the > ID to get new messages. The $ ID would just"
    " return an empty result set."
)
_NO_NEW = (
    "The > ID can be specified only when calling XREADGROUP using the GROUP <group> <consumer>"
    " option."
)


@define
class Read:
    """What an XREAD or XREADGROUP asks for.

    Attributes:
        verb: Which of them it is.
        count: The most entries of each stream; None: all.
        block_ms: How long to wait for entries; 0: without limit; None: not at all.
        group: The group and the consumer.
        is_unacknowledged: What is read does not become pending.
        keys: The streams.
        ids: The ID behind which each is read.
    """

    verb: str
    count: int | None = None
    block_ms: int | None = None
    group: tuple[bytes, bytes] | None = None
    is_unacknowledged: bool = False
    keys: tuple[bytes, ...] = ()
    ids: list[bytes] = field(factory=list)

    def parse(self, words: tuple[bytes, ...]) -> None:
        """Read the options and the streams.

        Raises:
            ClientError: One of them is wrong.
        """
        at = 0
        while at < len(words) and not self.keys:
            left = len(words) - at - 1
            at += 1 + self._parse_option(words[at].upper(), words[at + 1 :], left)
        if not self.keys:
            raise ClientError("syntax error")
        if self.verb == "XREADGROUP" and self.group is None:
            raise ClientError("Missing GROUP option for XREADGROUP")

    def check_timeout(self, now_ms: int) -> None:
        """Raise ClientError if the time is up only when no clock can tell."""
        if (self.block_ms or 0) + now_ms not in INT64:
            raise ClientError("timeout is out of range")

    def wait(self, topics: list[bytes], keep: bytes = b"") -> linepool.Wait:
        """Return what has the request wait.

        Raises:
            ClientError: There are too many streams.
        """
        if len(topics) > _MOST_TOPICS:
            raise ClientError("too many streams to wait for")
        seconds = self.block_ms / 1000 if self.block_ms else None
        return linepool.Wait(*topics, timeout=seconds, then=NullArray(), keep=keep)

    def _parse_option(self, option: bytes, behind: tuple[bytes, ...], left: int) -> int:
        """Read an option; return how many words belong to it."""
        if option == b"STREAMS" and left:
            self._parse_streams(behind)
            return left
        if option == b"BLOCK" and left:
            self.block_ms = integer(behind[0], "timeout is not an integer or out of range")
            if self.block_ms < 0:
                raise ClientError("timeout is negative")
        elif option == b"COUNT" and left:
            self.count = max(0, integer(behind[0])) or None
        elif (option == b"GROUP" and left >= 2) or option == b"NOACK":
            if self.verb == "XREAD":
                raise ClientError(
                    f"The {option.decode()} option is only supported by XREADGROUP."
                    " You called XREAD instead."
                )
            if option == b"NOACK":
                self.is_unacknowledged = True
                return 0
            self.group = behind[0], behind[1]
            return 2
        else:
            raise ClientError("syntax error")
        return 1

    def _parse_streams(self, words: tuple[bytes, ...]) -> None:
        if len(words) % 2:
            mark = "$" if self.verb == "XREAD" else ">"
            raise ClientError(
                f"Unbalanced '{self.verb.lower()}' list of streams: for each stream key an ID or"
                f" '{mark}' must be specified."
            )
        half = len(words) // 2
        self.keys, self.ids = words[:half], list(words[half:])


@app.handler(flags="readonly")
def xread(
    first: bytes, second: bytes, third: bytes, *more: bytes, db: Db, waited: linepool.Waited
) -> Found | linepool.Wait:
    """Return entries behind IDs: XREAD [COUNT n] [BLOCK ms] STREAMS key ... id ..."""
    wanted = Read("XREAD")
    wanted.parse((first, second, third, *more))
    unblocking = db.unblocking(waited)
    if waited.times:
        wanted.ids = waited.kept.split()  # of the first run, for what was the last entry then
    found, ids = [], []
    with db.read() as t:
        wanted.check_timeout(t.now_ms)
        for key, word in zip(wanted.keys, wanted.ids, strict=True):
            stream = _stream_again(t, key) if waited.times else Stream.find(t, key)
            ids.append(after := _behind(word, stream))
            if stream and (entries := stream.entries(after + 1, count=wanted.count)):
                found.append((key, rows(entries)))
    if found or wanted.block_ms is None:
        return _by_stream(found)
    topics = [entry_topic(db.database, key) for key in wanted.keys]
    return unblocking.wait(wanted.wait(topics, b" ".join(map(shown, ids))))


def _stream_again(t: Txn, key: bytes) -> Stream | None:
    """Return the stream of a key for a client that waits, also while the key is of another kind."""
    header = t.find(key)
    return Stream(t, header) if header and header.kind == STREAM else None


def _behind(word: bytes, stream: Stream | None) -> int:
    """Return the ID behind which XREAD reads; ``$`` is the last one."""
    if word == b"$":
        return stream.last_id if stream else 0
    if word == b">":
        raise ClientError(_NO_NEW)
    return parse_id(word)


@app.handler(flags="write")
def xreadgroup(
    first: bytes,
    second: bytes,
    third: bytes,
    fourth: bytes,
    fifth: bytes,
    sixth: bytes,
    *more: bytes,
    db: Db,
    waited: linepool.Waited,
) -> Found | linepool.Wait:
    """Deliver entries to a consumer: XREADGROUP GROUP group consumer [COUNT n] ... STREAMS key ... id ..."""
    wanted = Read("XREADGROUP")
    wanted.parse((first, second, third, fourth, fifth, sixth, *more))
    assert wanted.group is not None
    name, consumer = wanted.group
    unblocking = db.unblocking(waited)
    wait = wanted.block_ms is not None and wanted.wait(_group_topics(db.database, wanted))
    if wait and waited.times and not _has_news(db, wanted):
        return unblocking.wait(wait)
    with db.write() as t:
        wanted.check_timeout(t.now_ms)
        groups: dict[bytes, Group] = {}
        after = []
        for key, word in zip(wanted.keys, wanted.ids, strict=True):
            groups[key] = _group(t, key, name)
            after.append(_history_start(word))
        found = []
        for key, start in zip(wanted.keys, after, strict=True):
            entries = _delivered(groups[key], consumer, start, wanted)
            if entries or start != NEW:
                found.append((key, entries))
        for group in groups.values():
            group.save()
    return _by_stream(found) if found or not wait else unblocking.wait(wait)


def _group_topics(database: int, wanted: Read) -> list[bytes]:
    assert wanted.group is not None
    news = [group_topic(database, key, wanted.group[0]) for key in wanted.keys]
    return [*news, *(gone_topic(database, key) for key in wanted.keys), FLUSHED]


def _has_news(db: Db, wanted: Read) -> bool:
    """Whether a group of a consumer that waits has something to deliver, found without a write.

    Raises:
        ClientError: A stream or a group does not exist any more.
    """
    assert wanted.group is not None
    with db.read() as t:
        for key in wanted.keys:
            stream = _stream_again(t, key)
            if stream is None:
                raise ClientError("the stream key no longer exists", code="UNBLOCKED")
            group = Group.find(stream, wanted.group[0])
            if group is None:
                text = "the consumer group this client was blocked on no longer exists"
                raise ClientError(text, code="NOGROUP")
            if stream.ids(group.last_id + 1, count=1):
                return True
    return False


def _group(t: Txn, key: bytes, name: bytes) -> Group:
    stream = Stream.find(t, key)
    group = Group.find(stream, name) if stream else None
    if group is None:
        raise no_group(key, name, " in XREADGROUP with GROUP option")
    return group


def _history_start(word: bytes) -> int:
    """Return the ID behind which a consumer reads what it has not acknowledged, or NEW."""
    if word == b"$":
        raise ClientError(_NO_DOLLAR)
    return NEW if word == b">" else parse_id(word)


def _delivered(group: Group, name: bytes, start: int, wanted: Read) -> list[Row]:
    """Deliver entries to a consumer: new ones, or again some that it has not acknowledged."""
    consumer = group.seen(name)
    now = group.stream.t.now_ms
    if start != NEW:
        return _again(group, consumer, start, wanted.count)
    entries = group.stream.entries(group.last_id + 1, count=wanted.count)
    for number, _ in entries:
        group.advance(number)
        if not wanted.is_unacknowledged:
            group.hand_out(number, consumer, now)
            consumer.active_ms = now
    return rows(entries)


def _again(group: Group, consumer: Consumer, start: int, count: int | None) -> list[Row]:
    """Return entries that a consumer has not acknowledged; deleted ones have no fields."""
    found: list[Row] = []
    for number in list(islice(group.owned(consumer, start + 1), count)):
        fields = group.stream.entry(number)
        found.append([shown(number), NullArray() if fields is None else fields])
        old = group.pending_entry(number)
        if fields is not None and old is not None:
            group.hand_out(number, consumer, group.stream.t.now_ms, old.times + 1)
    return found


def _by_stream(found: list[tuple[bytes, list[Row]]]) -> Found:
    """Return what was found for a reply."""
    if not found:
        return NullArray()
    return PerVersion([list(pair) for pair in found], dict(found))
