"""The publish and subscribe commands of Redis 7.0."""

from __future__ import annotations

from collections.abc import Iterable

from linepool.protocols.base import Builtin
from linepool.protocols.resp.parser import RespParser
from linepool.protocols.resp.values import Push, encode
from linepool.pubsub.messages import PubSub
from linepool.session import Connection, Reply, Verb

WHILE_SUBSCRIBED = {
    *(b"SUBSCRIBE", b"UNSUBSCRIBE", b"PSUBSCRIBE", b"PUNSUBSCRIBE"),
    *(b"PING", b"QUIT", b"RESET"),
}
"""The commands that a subscriber may send in version 2, where a reply and a message look alike."""


def subscribe(
    channel: bytes, *channels: bytes, connection: Connection, resp: RespParser, verb: Verb
) -> Reply:
    """Subscribe to channels, or to patterns of names."""
    pattern = verb.startswith("P")
    kind = verb.lower()
    rows = []
    for topic in (channel, *channels):
        connection.subscribe(topic, pattern=pattern)
        rows.append((kind, topic, _count(connection, resp)))
    return _pushes(rows, resp)


def unsubscribe(*topics: bytes, connection: Connection, resp: RespParser, verb: Verb) -> Reply:
    """Cancel subscriptions; all of them if none is named."""
    pattern = verb.startswith("P")
    kind = verb.lower()
    rows: list[tuple[str, bytes | None, int]] = []
    for topic in topics or tuple(connection.subscriptions(pattern=pattern)):
        connection.unsubscribe(topic, pattern=pattern)
        rows.append((kind, topic, _count(connection, resp)))
    return _pushes(rows or [(kind, None, _count(connection, resp))], resp)


def unsubscribe_all(connection: Connection, resp: RespParser) -> None:
    """Cancel all subscriptions without a reply."""
    for pattern in (False, True):
        for topic in connection.subscriptions(pattern=pattern):
            connection.unsubscribe(topic, pattern=pattern)
    resp.subscribed = 0


def publish(channel: bytes, message: bytes, pubsub: PubSub) -> int:
    """Send a message to a channel; return the number of subscriptions it goes to."""
    return pubsub.publish(channel, message)


def channels(pubsub: PubSub, pattern: bytes | None = None) -> list[bytes]:
    """List the channels that have subscribers, or those whose names match a pattern."""
    return pubsub.channels() if pattern is None else pubsub.channels(pattern)


def count_subscribers(*channels: bytes, pubsub: PubSub) -> list[bytes | int]:
    """Return the number of subscribers of each channel; subscriptions to patterns do not count."""
    return [part for word in channels for part in (word, pubsub.subscribers(word))]


def count_patterns(pubsub: PubSub) -> int:
    """Return the number of patterns that clients have subscribed to."""
    return pubsub.patterns()


PUBSUB: tuple[Builtin, ...] = (
    (("SUBSCRIBE", "PSUBSCRIBE"), subscribe),
    (("UNSUBSCRIBE", "PUNSUBSCRIBE"), unsubscribe),
    (("PUBLISH",), publish),
    (("PUBSUB|CHANNELS",), channels),
    (("PUBSUB|NUMSUB",), count_subscribers),
    (("PUBSUB|NUMPAT",), count_patterns),
)


def _count(connection: Connection, resp: RespParser) -> int:
    topics = connection.subscriptions(pattern=False) + connection.subscriptions(pattern=True)
    resp.subscribed = len(topics)
    return resp.subscribed


def _pushes(rows: Iterable[tuple[str, bytes | None, int]], resp: RespParser) -> Reply:
    """Return one push per topic, in place of a reply."""
    return Reply(raw=b"".join(encode(Push(list(row)), resp.version) for row in rows))
