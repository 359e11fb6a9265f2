"""What a worker's handlers wake: collected until their batch is committed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping

from linepool.waiting import ALL, Waiters, topic_of


class WorkerWaiters(Waiters):
    """What the handlers of one app wake in a worker.

    Attributes:
        pending: How many requests are to be woken, by topic.
        send: Tells the others; before there is one, nobody waits.
        batch_has_begun: Called when something is to be told at the end of the batch.
    """

    def __init__(self) -> None:
        self.pending: dict[bytes, int] = {}
        self.send: Callable[[Mapping[bytes, int]], None] | None = None
        self.batch_has_begun: Callable[[], None] | None = None
        self._thread = threading.get_ident()

    def notify(self, topic: bytes | str, count: int = 1) -> None:
        """As ``Waiters.notify``."""
        if count < 0:
            raise ValueError(f"a number of requests to wake is not below 0, as {count} is")
        self._add(topic_of(topic), count)

    def publish(self, topic: bytes | str) -> None:
        """As ``Waiters.publish``."""
        self._add(topic_of(topic), ALL)

    def _add(self, topic: bytes, count: int) -> None:
        if threading.get_ident() != self._thread:
            if self.send is not None:
                self.send({topic: min(count, ALL)})
            return
        self.pending[topic] = min(self.pending.get(topic, 0) + count, ALL)
        if self.batch_has_begun is not None:
            self.batch_has_begun()

    def flush(self) -> None:
        """Tell the others: what was changed is committed."""
        pending, self.pending = self.pending, {}
        if self.send is not None:
            self.send(pending)


def waiters() -> Iterator[Waiters]:
    """The resource of each app that wakes requests."""
    yield WorkerWaiters()


WAITERS = "linepool.Waiters"
"""Its name."""
