"""An epoll set that does not take an event for that of another file under the same number.

Used by processes that close descriptors and receive others while they look at a batch of events. The
kernel reports descriptors by number, and a number that was closed is reused at once. So an event of
something that was registered after the batch was fetched is skipped: it belongs to what had the
number before. If it does not, epoll reports it again, for it is level-triggered (epoll(7)).
"""

from __future__ import annotations

import select
import selectors
import socket
from collections.abc import Iterator

from linepool.kernel import features


def new_selector() -> selectors.DefaultSelector:
    """Return a selector for the master: an epoll set, or poll(2).

    Its children close their copies; that of a kqueue would be the number of another file by then.
    """
    if features.EPOLL:
        return selectors.DefaultSelector()
    return selectors.PollSelector()  # type: ignore[return-value]  # it lacks fileno()


class PollSet:
    """The part of ``select.epoll`` that the scheme ``accept`` uses, where there is none; by poll(2)."""

    def __init__(self) -> None:
        self._poll = select.poll()

    def register(self, file: socket.socket | int, events: int) -> None:
        """Wait for events of a descriptor too."""
        self._poll.register(file, events)

    def unregister(self, file: socket.socket | int) -> None:
        """No longer wait for them."""
        self._poll.unregister(file)

    def poll(self, seconds: float | None = None, _most: int = -1) -> list[tuple[int, int]]:
        """Wait for some seconds at most; return descriptors and what has happened."""
        return self._poll.poll(None if seconds is None else seconds * 1000)

    def fileno(self) -> int:
        """Return -1: it has no descriptor."""
        return -1

    def close(self) -> None:
        """Do nothing."""


class EventSet:
    """Descriptors, and the events to wait for; as ``select.epoll``, level-triggered only."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._new: set[int] = set()  # registered since the last batch was fetched
        self.modify = self._epoll.modify
        self.unregister = self._epoll.unregister

    def register(self, file: socket.socket | int, events: int) -> None:
        """Wait for events of a descriptor too."""
        self._epoll.register(file, events)
        self._new.add(file if isinstance(file, int) else file.fileno())

    def wait(self, seconds: float | None) -> Iterator[tuple[int, int]]:
        """Wait for events, for some seconds at most; yield descriptors and what has happened."""
        batch = self._epoll.poll(seconds)
        self._new.clear()
        for descriptor, event in batch:
            if descriptor not in self._new:
                yield descriptor, event
