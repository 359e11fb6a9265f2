"""Clients that send a request each time one is due, in threads of their own, and what became of the requests.

A client whose connection has ended opens another one for its next request, and looks before each request
whether the server has closed the connection.
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence

from attrs import Factory, define

from benchmarks.comparisons.wires import CLOSED, ERROR, Client, FailedError

HELD_UP = 0.5  # seconds from when a request is due to its reply
_LIMIT = 15.0  # seconds, for one request


@define
class Story:
    """What became of the requests of one client.

    Attributes:
        latencies: Of those that were answered, in seconds from when each was due.
        failed: Those that were not, by the kind of failure.
        in_vain: How long the longest of those took to fail, in seconds.
        cut: Connections that the server ended without an announcement.
        waiting: How long the last request had waited at the end, without a reply; 0: it had none.
    """

    latencies: list[float] = Factory(list)
    failed: Counter[str] = Factory(Counter)
    in_vain: float = 0.0
    cut: int = 0
    waiting: float = 0.0

    @property
    def longest(self) -> float:
        """The longest time that this client has waited for one reply or failure, in seconds."""
        return max([self.waiting, self.in_vain, *self.latencies])


@define
class Outcome:
    """What became of the requests of all clients."""

    stories: list[Story]

    @property
    def answered(self) -> int:
        """The number of requests that were answered."""
        return sum(len(story.latencies) for story in self.stories)

    @property
    def failed(self) -> Counter[str]:
        """The requests that failed, by the kind of failure."""
        return sum((story.failed for story in self.stories), Counter())

    @property
    def cut(self) -> int:
        """The number of connections that the server ended without an announcement."""
        return sum(story.cut for story in self.stories)

    @property
    def held_up(self) -> int:
        """The number of clients that have waited for a reply for more than HELD_UP, or got none."""
        return sum(story.longest > HELD_UP or bool(story.failed) for story in self.stories)

    @property
    def longest(self) -> float:
        """The longest time that a client has waited for one reply, in seconds."""
        return max(story.longest for story in self.stories)

    @property
    def is_held(self) -> bool:
        """Whether a client still waited at the end."""
        return any(story.waiting > HELD_UP for story in self.stories)

    def percentile(self, share: float) -> float:
        """Return a percentile of the latencies, in seconds; those that still wait count too."""
        found = [latency for story in self.stories for latency in story.latencies]
        found += [story.waiting for story in self.stories if story.waiting > HELD_UP]
        return percentile(found, share)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that a share of the values does not exceed; nan if there are none."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else math.nan


class _Member:
    """One client and its thread."""

    def __init__(self, crowd: Crowd, first_due: float) -> None:
        self.story = Story()
        self._crowd = crowd
        self._due = first_due
        self._client: Client | None = None
        self._asks = False
        self._lock = threading.Lock()  # over what the thread and stop() both use
        self.thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._crowd.over.wait(max(0.0, self._due - time.monotonic())):
            self._request()
            self._due = max(self._due + self._crowd.period, time.monotonic())
        self._drop()

    def _request(self) -> None:
        with self._lock:
            self._asks = True
        try:
            self._connected().ask(_LIMIT, *self._crowd.request)
        except FailedError as failure:
            self._count(failure.kind, time.monotonic() - self._due)
            if failure.kind != ERROR:
                self._drop()
        else:
            self._count("", time.monotonic() - self._due)
        if self._client is not None and self._client.closes:
            self._drop()

    def _connected(self) -> Client:
        if self._client is not None and self._client.is_cut():
            self.story.cut += 1
            self._drop()
        if self._client is None:
            self._client = self._crowd.connect()
        return self._client

    def _count(self, failure: str, took: float) -> None:
        with self._lock:
            self._asks = False
            if self._crowd.over.is_set():
                return  # stop() has seen that this request waits
            if not failure:
                self.story.latencies.append(took)
                return
            self.story.failed[failure] += 1
            self.story.in_vain = max(self.story.in_vain, took)
            self.story.cut += failure == CLOSED

    def _drop(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def leave(self, now: float) -> None:
        """Note a request that waits, and end it."""
        with self._lock:
            if not self._asks:
                return
            self.story.waiting = max(0.0, now - self._due)
            if self._client is not None:
                self._client.abort()


class Crowd:
    """Some clients; they begin at once.

    Args:
        connect: Opens a connection.
        size: The number of clients.
        rate: Requests per second of each.
        request: The command and its arguments.
    """

    def __init__(
        self, connect: Callable[[], Client], size: int, rate: float, request: Sequence[object]
    ) -> None:
        self.connect = connect
        self.period = 1 / rate
        command, *arguments = request
        self.request: tuple[str, *tuple[object, ...]] = (str(command), *arguments)
        self.over = threading.Event()
        begin = time.monotonic()
        self._members = [_Member(self, begin + i / rate / size) for i in range(size)]
        for member in self._members:
            member.thread.start()

    def stop(self) -> Outcome:
        """Stop the clients and return what became of their requests."""
        self.over.set()
        now = time.monotonic()
        for member in self._members:
            member.leave(now)
        for member in self._members:
            member.thread.join()
        return Outcome([member.story for member in self._members])
