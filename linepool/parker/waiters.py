"""Which requests wait for which topics, and whom a wake-up is for. Pure: no I/O, no clock.

Wake-ups have numbers. A worker notes the last number before a handler looks for what it needs; so when its
request comes here to wait, any wake-up of a topic with a higher number may have been too early for it, and
the handler is run again at once. For that the number of the last wake-up is kept for each group of topics:
to be run once more is always right.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from heapq import heapify, heappop, heappush, nlargest
from itertools import islice

from attrs import define, field

from linepool.ipc.waiting import Waiting, Why
from linepool.waiting import ALL

_GROUPS = 4096
_SPARE = 16  # entries of requests that do not wait any more, which a line may keep


@define(eq=False)
class Waiter:
    """A request that waits.

    Attributes:
        key: Where it is.
        waiting: What is known of it.
    """

    key: Hashable
    waiting: Waiting
    waits: bool = True


@define(eq=False)
class _Line:
    """The requests that wait for one topic, by their tickets; some of the entries are out of date."""

    entries: list[tuple[int, int, Waiter]] = field(factory=list)
    count: int = 0


class Waiters:
    """The requests that wait.

    Args:
        version: The number of the last wake-up; those before it are not known.
    """

    def __init__(self, version: int = 0) -> None:
        self.version = version
        self._recent = [version] * _GROUPS  # the last wake-up of each group
        self._lines: dict[bytes, _Line] = {}
        self._crowded: dict[bytes, _Line] = {}  # those of them in which several requests wait
        self._by_key: dict[Hashable, Waiter] = {}
        self._tickets = 0
        self._entries = 0

    def __len__(self) -> int:
        return len(self._by_key)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._by_key

    def add(self, key: Hashable, waiting: Waiting, now_ns: int) -> bool:
        """Have a request wait; return False if it is to be run at once, for it may have missed a wake-up.

        Args:
            key: Where it is; none of that key waits.
            waiting: What is known of it; gets its ticket here.
            now_ns: The present, by which tickets of another parker are older ones.
        """
        if not waiting.ticket:
            self._tickets = max(self._tickets + 1, now_ns)
            waiting.ticket = self._tickets
        for topic in waiting.topics:
            if self._recent[hash(topic) % _GROUPS] > waiting.version:
                waiting.why, waiting.topic = Why.WOKEN, topic
                return False
        waiting.why, waiting.topic = Why.WAITS, b""
        self._by_key[key] = waiter = Waiter(key, waiting)
        for topic in waiting.topics:
            line = self._lines.setdefault(topic, _Line())
            self._entries += 1
            heappush(line.entries, (waiting.ticket, self._entries, waiter))
            line.count += 1
            if line.count > 1:
                self._crowded[topic] = line
        return True

    def pop(self, key: Hashable) -> Waiting | None:
        """Have a request wait no more; return what is known of it, or None: it does not wait."""
        waiter = self._by_key.pop(key, None)
        if waiter is None:
            return None
        waiter.waits = False
        for topic in waiter.waiting.topics:
            line = self._lines[topic]
            line.count -= 1
            if line.count <= 1:
                self._crowded.pop(topic, None)
            if not line.count:
                del self._lines[topic]
            elif len(line.entries) > 2 * line.count + _SPARE:
                line.entries = [entry for entry in line.entries if entry[2].waits]
                heapify(line.entries)
        return waiter.waiting

    def get(self, key: Hashable) -> Waiting | None:
        """Return what is known of a request, or None: it does not wait."""
        waiter = self._by_key.get(key)
        return None if waiter is None else waiter.waiting

    def pop_all(self, matches: Callable[[Hashable], bool]) -> None:
        """Have all requests wait no more whose keys match."""
        for key in [key for key in self._by_key if matches(key)]:
            self.pop(key)

    def wake(self, topic: bytes, count: int) -> list[tuple[Hashable, Waiting]]:
        """Return the requests that a wake-up is for: they wait no more.

        Args:
            topic: Their topic.
            count: How many; ``ALL``: all.
        """
        self.version += 1
        self._recent[hash(topic) % _GROUPS] = self.version
        woken: list[tuple[Hashable, Waiting]] = []
        while (line := self._lines.get(topic)) is not None and (count == ALL or len(woken) < count):
            waiter = heappop(line.entries)[2]
            if waiter.waits and (waiting := self.pop(waiter.key)) is not None:
                waiting.why, waiting.topic = Why.WOKEN, topic
                woken.append((waiter.key, waiting))
        return woken

    def end(self, why: Why) -> list[tuple[Hashable, Waiting]]:
        """Return all requests, which wait no more."""
        self.version += 1
        self._recent = [self.version] * _GROUPS
        ended = [(key, waiter.waiting) for key, waiter in self._by_key.items()]
        ended.sort(key=lambda one: one[1].ticket)
        for key, waiting in ended:
            self.pop(key)
            waiting.why = why
        return ended

    def longest(self, most: int) -> Iterator[tuple[bytes, int, Waiting]]:
        """Yield the topics for which most requests wait, with their number and the first of them."""
        # Not all topics are looked at: there may be one for each client.
        found = nlargest(most, self._crowded.items(), key=lambda item: item[1].count)
        if len(found) < most:
            others = (item for item in self._lines.items() if item[1].count == 1)
            found += islice(others, most - len(found))
        for topic, line in found:
            while not line.entries[0][2].waits:
                heappop(line.entries)
            yield topic, line.count, line.entries[0][2].waiting
