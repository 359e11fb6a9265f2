"""XCLAIM and XAUTOCLAIM: a consumer takes over what another one has not acknowledged."""

from __future__ import annotations

from typing import Any

from application import app
from attrs import define, field
from db import Db
from stream_data import Stream
from stream_group import Group, no_group
from stream_ids import parse_bound, parse_id, shown
from streams import integer
from transaction import Txn

from linepool import ClientError

_MOST_CLAIMED = (2**63 - 1) // 16
_ATTEMPTS = 10  # pending entries that XAUTOCLAIM looks at for each that it may claim


@define
class Claim:
    """What an XCLAIM asks for.

    Attributes:
        ids: The entries.
        idle_ms: How long ago they are to have been delivered.
        at_ms: Or when; None: not given.
        times: How often they are to have been delivered; None: once more, unless ``just_ids``.
        last_id: What the group has delivered up to.
        force: Entries need not be pending.
        just_ids: The reply has only the IDs.
    """

    ids: list[int] = field(factory=list)
    idle_ms: int = 0
    at_ms: int | None = None
    times: int | None = None
    last_id: int = 0
    force: bool = False
    just_ids: bool = False

    def parse(self, words: tuple[bytes, ...]) -> None:
        """Read the IDs and the options behind them.

        Raises:
            ClientError: An option is wrong.
        """
        at = 0
        while at < len(words) and (number := _id_or_none(words[at])) is not None:
            self.ids.append(number)
            at += 1
        while at < len(words):
            option = words[at].upper()
            if option == b"FORCE":
                self.force = True
            elif option == b"JUSTID":
                self.just_ids = True
            elif at + 1 < len(words):
                self._parse_value(option, words[at], words[at + 1])
                at += 1
            else:
                raise _unknown_option(words[at])
            at += 1

    def _parse_value(self, option: bytes, word: bytes, value: bytes) -> None:
        if option == b"LASTID":
            self.last_id = parse_id(value)
            return
        if option not in (b"IDLE", b"TIME", b"RETRYCOUNT"):
            raise _unknown_option(word)
        number = integer(value, f"Invalid {option.decode()} option argument for XCLAIM")
        if option == b"RETRYCOUNT":
            self.times = number if number >= 0 else None
        elif option == b"TIME":
            self.at_ms = number
        else:
            self.at_ms, self.idle_ms = None, number

    def delivered_ms(self, now_ms: int) -> int:
        """Return when the entries are to have been delivered."""
        at_ms = now_ms - self.idle_ms if self.at_ms is None else self.at_ms
        return at_ms if 0 <= at_ms <= now_ms else now_ms


def _id_or_none(word: bytes) -> int | None:
    try:
        return parse_id(word)
    except ClientError:
        return None


def _unknown_option(word: bytes) -> ClientError:
    return ClientError(f"Unrecognized XCLAIM option '{word.decode(errors='replace')}'")


@app.handler(flags="write fast")
def xclaim(
    key: bytes, group: bytes, consumer: bytes, idle: bytes, first: bytes, *more: bytes, db: Db
) -> list[Any]:
    """Take over entries: XCLAIM key group consumer min-idle-ms id ... [IDLE ms] [JUSTID] ..."""
    with db.write() as t:
        found = _group(t, key, group)
        min_idle_ms = max(0, integer(idle, "Invalid min-idle-time argument for XCLAIM"))
        wanted = Claim()
        wanted.parse((first, *more))
        found.last_id = max(found.last_id, wanted.last_id)
        reply = _claimed(found, consumer, min_idle_ms, wanted)
        found.save()
    return reply


def _group(t: Txn, key: bytes, name: bytes) -> Group:
    group = Group.find(Stream.find(t, key), name)
    if group is None:
        raise no_group(key, name)
    return group


def _claimed(group: Group, name: bytes, min_idle_ms: int, wanted: Claim) -> list[Any]:
    """Take entries over; return them, or their IDs."""
    consumer = group.seen(name)
    now_ms = group.stream.t.now_ms
    reply: list[Any] = []
    for number in wanted.ids:
        pending = group.pending_entry(number)
        fields = group.stream.entry(number)
        if pending and fields is None:
            group.settle(number, pending)
        if fields is None or not (pending or wanted.force):
            continue
        if pending and min_idle_ms and now_ms - pending.at_ms < min_idle_ms:
            continue
        times = (pending.times if pending else 1) + (not wanted.just_ids)
        if wanted.times is not None:
            times = wanted.times
        group.hand_out(number, consumer, wanted.delivered_ms(now_ms), times)
        consumer.active_ms = now_ms
        reply.append(shown(number) if wanted.just_ids else [shown(number), fields])
    return reply


@app.handler(flags="write fast")
def xautoclaim(
    key: bytes, group: bytes, consumer: bytes, idle: bytes, start: bytes, *words: bytes, db: Db
) -> list[Any]:
    """Take over idle entries: XAUTOCLAIM key group consumer min-idle-ms start [COUNT n] [JUSTID]."""
    min_idle_ms = max(0, integer(idle, "Invalid min-idle-time argument for XAUTOCLAIM"))
    first = parse_bound(start, upper=False)
    count, just_ids = _scan_options(words)
    with db.write() as t:
        found = _group(t, key, group)
        taker = found.seen(consumer)
        cursor, idle_ones, gone = _scan(found, first, min_idle_ms, count)
        for number in gone:
            if pending := found.pending_entry(number):
                found.settle(number, pending)
        reply: list[Any] = []
        for number, times, fields in idle_ones:
            found.hand_out(number, taker, t.now_ms, times + (not just_ids))
            taker.active_ms = t.now_ms
            reply.append(shown(number) if just_ids else [shown(number), fields])
        found.save()
    return [shown(cursor), reply, [shown(number) for number in gone]]


def _scan_options(words: tuple[bytes, ...]) -> tuple[int, bool]:
    """Return the most entries to claim, and whether the reply has only the IDs."""
    count, just_ids = 100, False
    at = 0
    while at < len(words):
        option = words[at].upper()
        if option == b"COUNT" and at + 1 < len(words):
            count = integer(words[at + 1], "COUNT must be > 0")
            if not 1 <= count <= _MOST_CLAIMED:
                raise ClientError("COUNT must be > 0")
            at += 1
        elif option == b"JUSTID":
            just_ids = True
        else:
            raise ClientError("syntax error")
        at += 1
    return count, just_ids


def _scan(
    group: Group, first: int, min_idle_ms: int, count: int
) -> tuple[int, list[tuple[int, int, list[bytes]]], list[int]]:
    """Look for pending entries that are idle.

    Returns:
        The ID at which the next scan begins, 0: this one was the last; the idle entries, each with how
        often it was delivered; those that are pending though they were deleted.
    """
    now_ms = group.stream.t.now_ms
    idle: list[tuple[int, int, list[bytes]]] = []
    gone: list[int] = []
    for looked_at, (number, pending) in enumerate(group.pending_entries(first)):
        if looked_at == count * _ATTEMPTS or len(idle) + len(gone) == count:
            return number, idle, gone
        fields = group.stream.entry(number)
        if fields is None:
            gone.append(number)
        elif not min_idle_ms or now_ms - pending.at_ms >= min_idle_ms:
            idle.append((number, pending.times, fields))
    return 0, idle, gone
