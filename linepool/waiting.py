"""Requests that wait without a worker: what a handler returns and is given. Pure: no I/O, no clock."""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from typing import Any

from attrs import frozen

MOST_TOPICS = 64
"""For which one request may wait."""
MOST_KEPT_BYTES = 4096
"""That a request may keep from one run of its handler to the next."""
ALL = 2**32 - 1
"""In place of a number of requests: all that wait for a topic."""
_LONGEST_TOPIC = 160  # bytes; of a longer one, its beginning and a digest stand for it
_BEGINNING = 96
_LONGEST_TIMEOUT = 10 * 366 * 24 * 3600.0


class Wait:
    """What a handler returns to have its request wait, without a worker, until one of its topics is woken.

    The handler is run again then, from its beginning, by any worker: also when the time is up, and when
    the server stops. A handler that may return it says so in its return annotation::

        @linepool.handler
        def take(queue: str, timeout: float = 30) -> str | linepool.Wait:
            job = jobs.pop(queue)
            return job if job else linepool.Wait(queue, timeout=timeout, then="none")

    Where a request cannot wait, its time is up at once: as a part of a batch or a transaction, in
    ``App.ask`` and with ``--workers 0``.

    Args:
        topics: Names that mean something to the app; a str is UTF-8.
        timeout: Seconds from the first time that the request waits; a later run cannot move that.
            None: as long as the client stays.
        then: The value that is the reply when the time is up.
        keep: Bytes that the next run of the handler finds in ``Waited.kept``.

    Raises:
        ValueError, TypeError: An argument is not of that form; the text says which.
    """

    __slots__ = ("keep", "then", "timeout", "topics")

    def __init__(
        self,
        *topics: bytes | str,
        timeout: float | None = None,
        then: Any = None,
        keep: bytes = b"",
    ) -> None:
        if not 0 < len(topics) <= MOST_TOPICS:
            raise ValueError(f"a request waits for 1 to {MOST_TOPICS} topics, not {len(topics)}")
        if timeout is not None and not (0 <= timeout < math.inf):
            raise ValueError(f"a timeout is a number of seconds from 0, or None, not {timeout!r}")
        self.keep = bytes(memoryview(keep))
        if len(self.keep) > MOST_KEPT_BYTES:
            raise ValueError(f"a request keeps {MOST_KEPT_BYTES} bytes at most, not {len(keep)}")
        self.topics = tuple(dict.fromkeys(map(topic_of, topics)))
        self.timeout = None if timeout is None else min(float(timeout), _LONGEST_TIMEOUT)
        self.then = then

    def __repr__(self) -> str:
        return f"Wait({', '.join(map(repr, self.topics))}, timeout={self.timeout})"


@frozen
class Waited:
    """What a handler that waits learns of the runs before; injected by annotation.

    Attributes:
        times: How often it has waited; 0: this is its first run.
        seconds: For how long, since it first did.
        topic: By which it was woken; b"": by none.
        expired: Its time is up: if it returns ``Wait`` once more, its reply is ``then``.
        stopping: It is up because the server stops, or its worker leaves.
        kept: What the run before has kept.
    """

    times: int = 0
    seconds: float = 0.0
    topic: bytes = b""
    expired: bool = False
    stopping: bool = False
    kept: bytes = b""


FIRST_RUN = Waited()


class Waiters(ABC):
    """Wakes requests that wait; injected by annotation into handlers, hooks and resources.

    What is called in a handler has its effect when the replies of its batch are about to be sent: then what
    the batch has changed is committed. What another thread of the worker calls has its effect at once. A
    wake-up is a hint: the handler that is run again looks for itself. It is never lost: a request whose
    handler has looked before the change, and waits only now, is run again too.
    """

    @abstractmethod
    def notify(self, topic: bytes | str, count: int = 1) -> None:
        """Wake the requests that have waited longest for a topic: one for each thing that has come.

        Raises:
            ValueError: The count is below 0.
        """

    @abstractmethod
    def publish(self, topic: bytes | str) -> None:
        """Wake all requests that wait for a topic."""


def topic_of(text: bytes | str) -> bytes:
    """Return what stands for a topic between processes."""
    topic = text.encode() if isinstance(text, str) else bytes(memoryview(text))
    if len(topic) <= _LONGEST_TOPIC:
        return topic
    return topic[:_BEGINNING] + b"~" + hashlib.sha256(topic).digest()
