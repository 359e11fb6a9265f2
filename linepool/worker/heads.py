"""The connections of a worker whose PROXY header has not come; they hold up nothing else.

Runs in workers. Only the header is taken out of the kernel, once all of it is there, so what serves the
connection then finds it as it would be without a proxy; until then it may move to another process as it is.
"""

from __future__ import annotations

import contextlib
import logging
import math
import select
import socket
import time
from collections.abc import Callable, Iterator

from attrs import define, evolve

from linepool.kernel.event_set import PollSet
from linepool.kernel.features import EPOLL, POLLRDHUP
from linepool.kernel.lingering import PATIENCE
from linepool.kernel.sockets import DONTWAIT, address_of_text, close_by_reset, unread_bytes
from linepool.proxy_header import MOST_BYTES, HeaderError, address_text, read_header
from linepool.session import Session
from linepool.settings import Settings

log = logging.getLogger("linepool")

_GONE = POLLRDHUP | select.POLLHUP | select.POLLERR
_EVENTS = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET if EPOLL else select.POLLIN
_LOOK_EVERY = 0.01
"""Seconds between two looks at an incomplete header, where the kernel reports it all the time."""
_TICK = 0.25  # seconds between two looks whether the worker is to leave


@define(eq=False)
class Head:
    """A connection whose header is to come.

    Attributes:
        sock: The proxy's.
        session: What it will remember; until the header is there, ``peer`` is the proxy's address.
        accepted_at: When it was accepted; monotonic, in seconds.
        give_up_at: When it is closed; likewise.
    """

    sock: socket.socket
    session: Session
    accepted_at: float
    give_up_at: float

    @classmethod
    def of(
        cls, sock: socket.socket, session: Session, accepted_at: float, settings: Settings
    ) -> Head:
        """Return one; for the arguments see the class; ``settings`` are those of its listener."""
        return cls(sock, session, accepted_at, accepted_at + settings.proxy_timeout)

    @property
    def address(self) -> object:
        """The client's address, as ``Listener.accept`` would give it, once the header has been read."""
        return address_of_text(self.session.peer)

    def read(self) -> bool:
        """Take the header if all of it is there; return whether that is so.

        Raises:
            OSError: The proxy has closed the connection, as after a health check.
            HeaderError: What it has sent is not a header.
        """
        try:
            data = self.sock.recv(MOST_BYTES, socket.MSG_PEEK | DONTWAIT)
        except BlockingIOError:
            return False
        header = read_header(data) if data else None
        if header is None:
            if not data or self._has_ended():
                raise ConnectionError
            return False
        self.sock.recv(header.size, DONTWAIT)
        if self._has_ended() and not unread_bytes(self.sock.fileno()):
            raise ConnectionError
        session = self.session
        session.proxy = evolve(header.proxied, via=session.peer)
        if header.source is not None:
            session.peer = address_text(header.source)
            session.pid = session.uid = session.gid = None  # which are the proxy's
        return True

    def _has_ended(self) -> bool:
        """Whether the proxy sends nothing any more."""
        poller = select.poll()
        poller.register(self.sock, POLLRDHUP)
        return any(event & _GONE for _, event in poller.poll(0))

    def read_or_close(self) -> bool | None:
        """As ``read``; None: it is closed, because the header is malformed or the proxy has gone."""
        try:
            return self.read()
        except HeaderError as error:
            self.fail(str(error))
        except OSError:
            self.sock.close()
        return None

    def fail(self, why: str) -> None:
        """Close it; the log says why."""
        peer, listener = self.session.peer, self.session.listener
        text = "rejected connection peer=%s listener=%s reason=PROXY header: %s"
        log.warning(text, peer, listener, why)
        close_by_reset(self.sock)

    def expire(self) -> None:
        """Close it, because the header is late; one that has sent nothing at all is a probe of the port."""
        if unread_bytes(self.sock.fileno()):
            self.fail(f"incomplete after {self.give_up_at - self.accepted_at:g} s")
        else:
            self.sock.close()


class Heads:
    """Those of one worker.

    Args:
        epoll: Where their sockets are registered. Edge-triggered, for what has come of a header stays in the
            kernel.
        count: Called when there is one more, or one less.

    Attributes:
        due: When ``close_expired`` is due; monotonic, in seconds.
    """

    def __init__(
        self, epoll: select.epoll | PollSet, count: Callable[[], None] = lambda: None
    ) -> None:
        self.due = math.inf
        self._epoll = epoll
        self._count = count
        self._heads: dict[int, Head] = {}

    def __len__(self) -> int:
        return len(self._heads)

    def __contains__(self, descriptor: int) -> bool:
        return descriptor in self._heads

    def __iter__(self) -> Iterator[Head]:
        return iter(list(self._heads.values()))

    def add(self, head: Head) -> None:
        """Wait for another header."""
        self._heads[head.sock.fileno()] = head
        self._epoll.register(head.sock, _EVENTS)
        self.due = min(self.due, head.give_up_at)
        self._count()

    def remove(self, head: Head) -> None:
        """No longer wait for one; its socket stays open."""
        del self._heads[head.sock.fileno()]
        self._epoll.unregister(head.sock)
        self._count()

    def read(self, descriptor: int) -> Head | None:
        """Read what has come; if a header is complete, return its connection, which leaves this set."""
        head = self._heads[descriptor]
        try:
            if not head.read():
                return None
        except HeaderError as error:
            self.remove(head)
            head.fail(str(error))
            return None
        except OSError:
            self.remove(head)
            head.sock.close()
            return None
        self.remove(head)
        return head

    def close_expired(self, now: float) -> float:
        """Close those whose header is late; return when to look again."""
        if now >= self.due:
            for head in self:
                if now >= head.give_up_at:
                    self.remove(head)
                    head.expire()
            self.due = min((head.give_up_at for head in self), default=math.inf)
        return self.due

    def hurry(self, since: float) -> None:
        """Have all headers come soon, for the worker has been leaving since a moment."""
        for head in self:
            head.give_up_at = min(head.give_up_at, max(since, head.accepted_at) + PATIENCE)
        self.due = 0.0

    def close(self) -> None:
        """Close all, because the worker stops at once."""
        for head in self:
            self.remove(head)
            head.sock.close()


def wait_for(head: Head, is_leaving: Callable[[], bool]) -> bool:
    """Wait for a header, where a worker serves one client at a time; return False if it is closed.

    ``is_leaving``: whether the worker is to leave, which ends the wait soon.
    """
    left_at = 0.0
    with contextlib.closing(select.epoll() if EPOLL else PollSet()) as epoll:
        heads = Heads(epoll)
        heads.add(head)
        while heads:
            seconds = min(_TICK, heads.due - time.monotonic())
            if epoll.poll(max(0.0, seconds)):
                if heads.read(head.sock.fileno()):
                    return True
                if not EPOLL:
                    time.sleep(_LOOK_EVERY)
            if not left_at and is_leaving():
                left_at = time.monotonic()
                heads.hurry(left_at)
            heads.close_expired(time.monotonic())
    return False
