"""Producers and consumers of a stream whose server loses workers; what must hold for them."""

from __future__ import annotations

import contextlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import redis
from attrs import define
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.clients.harness import Killer, redis_client
from tests.servers import ServerProcess

_LOST = (redis.ConnectionError, redis.ResponseError)


@define
class Outcome:
    """What was done: entries added, got by consumers, acknowledged, and left pending."""

    added: int
    got: int
    acknowledged: int
    pending: int


def entries_of(reply):
    """Return the entries of the one stream that was read."""
    ((_, entries),) = reply.items() if isinstance(reply, dict) else reply
    return entries[0] if isinstance(entries[0], list) else entries


def run_group(
    server: ServerProcess, killer: Killer, kills: int, producers: int = 2, consumers: int = 2
) -> Outcome:
    """Run producers and consumers of a group until so many workers were killed; check what became of it all.

    Every entry whose producer got its ID is in the stream; none was handed to two consumers; each was got,
    or is pending, or was not delivered; none whose XACK was answered is pending.
    """
    with redis_client(server, retry=Retry(NoBackoff(), 50)) as r:
        r.xgroup_create("s", "g", "0", mkstream=True)

    def produce(number: int) -> list[str]:
        added = []
        with redis_client(server, retry=Retry(NoBackoff(), 0)) as r:
            while killer.killed < kills:
                with contextlib.suppress(*_LOST):
                    added.append(r.xadd("s", {"from": number}))
        return added

    def consume(number: int) -> tuple[list[str], list[str]]:
        got: list[str] = []
        acknowledged: list[str] = []
        with redis_client(server, retry=Retry(NoBackoff(), 0)) as r:
            while killer.killed < kills:
                with contextlib.suppress(*_LOST):
                    reply = r.xreadgroup("g", f"c{number}", {"s": ">"}, 10, block=1000)
                    ids = [one for one, _ in entries_of(reply)] if reply else []
                    got += ids
                    if ids:
                        r.xack("s", "g", *ids)
                        acknowledged += ids
        return got, acknowledged

    with ThreadPoolExecutor(producers + consumers) as pool:
        adding = [pool.submit(produce, number) for number in range(producers)]
        reading = [pool.submit(consume, number) for number in range(consumers)]
        added = {one for each in adding for one in each.result()}
        outcomes = [each.result() for each in reading]
    got = Counter(one for ids, _ in outcomes for one in ids)
    acknowledged = {one for _, ids in outcomes for one in ids}
    with redis_client(server) as r:
        stored = {one for one, _ in r.xrange("s")}
        found = r.xpending_range("s", "g", "-", "+", len(stored) + 1)
        pending = {one["message_id"] for one in found}
        later = r.xreadgroup("g", "last", {"s": ">"})
        undelivered = {one for one, _ in entries_of(later)} if later else set()
        entries_read = r.xinfo_groups("s")[0]["entries-read"]
    assert added <= stored
    assert max(got.values(), default=1) == 1
    assert not acknowledged & pending
    assert stored == set(got) | pending | undelivered
    assert entries_read == len(stored)
    return Outcome(len(added), len(got), len(acknowledged), len(pending))
