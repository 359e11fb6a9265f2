"""What is known of a request that waits, and of wake-ups, as worker and parker tell each other.

What a worker sends is checked here: its app may have written anything.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Iterator, Mapping
from enum import IntEnum

from attrs import define, field

_VERSION = 1
_LONGEST_SINCE = 1e9  # seconds: more than a machine is up
# version, why, topics, times, number of the last wake-up, ticket, settles, since, deadline, kept, command
HEAD = struct.Struct("=BBBIQQQddHH")
_SIZE = struct.Struct("=H")
_WAKES = struct.Struct("=HHH")
_NUMBER = struct.Struct("=Q")
_COUNT = struct.Struct("=IH")
MOST_REPLY_BYTES = 4096
"""Of the reply to a client that leaves."""
MOST_BESIDE_BYTES = 24 * 1024
"""Of the requests that wait at one connection and that others may overtake."""
MOST_BYTES = 32 * 1024
"""Of the requests that wait at one connection, and of the wake-ups in one message."""


class Why(IntEnum):
    """Why the handler of a request that waits is run again."""

    WAITS = 0  # it is not
    WOKEN = 1
    EXPIRED = 2
    STOPPING = 3


@define
class Waiting:
    """A request that waits.

    Attributes:
        topics: What for.
        version: The number of the last wake-up that was known before its handler looked.
        since: When it first waited; monotonic, in seconds.
        deadline: When its time is up, likewise; infinite: never.
        times: How often it has waited.
        ticket: Its place in the order of arrival; 0: it has none yet.
        settles: The number of the connection given to the worker whose wake-up was used for this; 0: none.
        why: Why it is to be run again.
        topic: By which it was woken, or b"".
        command: Its name, for people.
        kept: For the next run of its handler.
        reply: What its client is sent if it ends its side of the connection meanwhile.
        request: The request itself, if others of its connection may overtake it; b"": they wait, and
            it is in front of what its protocol has not read.
        gift: In a worker, the number under which the parker has woken it; 0: it has not.
        stays_as: In a worker, the number under which it waits there; 0: it does not.
    """

    topics: list[bytes]
    version: int = 0
    since: float = 0.0
    deadline: float = math.inf
    times: int = 1
    ticket: int = 0
    settles: int = 0
    why: Why = Why.WAITS
    topic: bytes = b""
    command: bytes = b""
    kept: bytes = b""
    reply: bytes = b""
    request: bytes = b""
    gift: int = 0
    stays_as: int = 0

    def packed(self) -> bytes:
        """Return it as ``unpacked`` takes it."""
        head = HEAD.pack(
            *(_VERSION, self.why, len(self.topics), self.times, self.version, self.ticket),
            *(self.settles, self.since, self.deadline, len(self.kept), len(self.command)),
        )
        texts = (self.request, self.reply, self.topic, *self.topics)
        return b"".join(
            [head, self.kept, self.command, *(_SIZE.pack(len(one)) + one for one in texts)]
        )


def unpacked(data: bytes) -> Waiting:
    """Return what was packed.

    Raises:
        struct.error, ValueError: It is malformed.
    """
    head = HEAD.unpack_from(data)
    version, why, count, times, wakes, ticket, settles, since, deadline, kept, command = head
    if version != _VERSION or not 0 <= since < _LONGEST_SINCE or math.isnan(deadline) or not count:
        raise ValueError("a malformed request that waits")
    at = HEAD.size + kept + command
    request, reply, topic, *topics = _texts(data, at, count + 3)
    return Waiting(
        topics,
        wakes,
        since,
        deadline,
        times,
        ticket,
        settles,
        Why(why),
        topic,
        data[at - command : at],
        data[HEAD.size : HEAD.size + kept],
        reply,
        request,
    )


def packed_all(some: Iterable[Waiting]) -> bytes:
    """Return several requests that wait, as ``unpacked_all`` takes them."""
    return b"".join(_SIZE.pack(len(data)) + data for data in (one.packed() for one in some))


def unpacked_all(data: bytes) -> list[Waiting]:
    """Return what was packed; raises as ``unpacked``."""
    found, at = [], 0
    while at < len(data):
        (size,) = _SIZE.unpack_from(data, at)
        at += _SIZE.size + size
        if at > len(data):
            raise ValueError("a request is cut")
        found.append(unpacked(data[at - size : at]))
    return found


def _texts(data: bytes, at: int, count: int) -> Iterator[bytes]:
    for _ in range(count):
        (size,) = _SIZE.unpack_from(data, at)
        at += _SIZE.size
        if at + size > len(data):
            raise ValueError("a text is cut")
        yield data[at : at + size]
        at += size


@define
class Wakes:
    """From a worker to the parker: what has happened that requests may wait for, and what it has done.

    Attributes:
        topics: How many requests to wake, by topic; or ``waiting.ALL``.
        settled: Numbers of connections that were given because of a wake-up, which was used.
        left: Numbers of the worker's own waiting requests whose clients have left.
    """

    topics: Mapping[bytes, int] = field(factory=dict)
    settled: list[int] = field(factory=list)
    left: list[int] = field(factory=list)

    def packed(self) -> bytes:
        """Return it as ``unpacked_wakes`` takes it."""
        numbers = [*self.settled, *self.left]
        parts = [_WAKES.pack(len(self.topics), len(self.settled), len(self.left))]
        parts += [_NUMBER.pack(number) for number in numbers]
        parts += [_COUNT.pack(count, len(one)) + one for one, count in self.topics.items()]
        return b"".join(parts)


def unpacked_wakes(data: bytes) -> Wakes:
    """Return what was packed; raises as ``unpacked``."""
    topics, settled, left = _WAKES.unpack_from(data)
    at = _WAKES.size + _NUMBER.size * (settled + left)
    numbers = [one for (one,) in _NUMBER.iter_unpack(data[_WAKES.size : at])]
    if len(numbers) != settled + left:
        raise ValueError("numbers are cut")
    found = {}
    for _ in range(topics):
        count, size = _COUNT.unpack_from(data, at)
        at += _COUNT.size
        if at + size > len(data):
            raise ValueError("a topic is cut")
        found[data[at : at + size]] = count
        at += size
    return Wakes(found, numbers[:settled], numbers[settled:])


def parts_of(wakes: Wakes) -> Iterator[Wakes]:
    """Yield wake-ups as messages of which none is too long."""
    size, some = 0, Wakes({}, wakes.settled, wakes.left)
    for topic, count in wakes.topics.items():
        size += len(topic) + _COUNT.size
        if size > MOST_BYTES:
            yield some
            size, some = len(topic) + _COUNT.size, Wakes()
        some.topics = {**some.topics, topic: count}
    yield some
