"""The intake: how a worker comes by its next client. One class for each scheme.

Runs in workers.
"""

from __future__ import annotations

import logging
import select
import socket
import time

from linepool.kernel.acceptor import FULL, FULL_AT_MOST, FULL_PAUSE
from linepool.kernel.listeners import Listener, Waker, set_tick, tick
from linepool.settings import Settings
from linepool.worker.orders import Orders

log = logging.getLogger("linepool")

Client = tuple[socket.socket, object, Listener]
"""An accepted connection, the peer's address, and the listener that it came to."""


class Accept:
    """The scheme ``accept``: take one client and stay with it.

    With one listener the worker sleeps in accept() itself, the quickest way, and the kernel wakes
    the sleepers in turn. With several it sleeps in epoll, which wakes one of them for each client.
    """

    def __init__(
        self, listeners: list[Listener], orders: Orders, waker: Waker, settings: Settings
    ) -> None:
        self._listeners = listeners
        self._tick = tick(settings)
        self._orders = orders
        self._waker = waker
        self._poller = None if len(listeners) == 1 else _poller(listeners, orders)
        self._left = -1  # queued clients that are still to be taken before leaving; -1: not leaving

    def next(self) -> Client | None:
        """Return the next client, or None: it is time to leave."""
        self._full = 0
        while self._may_go_on():
            for listener in self._ready():
                if client := self._accept(listener):
                    return client
        return None

    def _may_go_on(self) -> bool:
        if self._full >= FULL_AT_MOST:
            return False  # descriptors that leaked go with the process
        if not self._orders.leaving():
            return True
        if not self._orders.take_queued():
            return False
        queued = sum(listener.queue()[0] for listener in self._listeners)
        # No more than were there at the stop, and no longer than any are: others take them too.
        self._left = min(queued, self._left - 1) if self._left >= 0 else queued
        return self._left > 0

    def _ready(self) -> list[Listener]:
        """Return the listeners on which a client may wait."""
        if self._poller is None or self._left >= 0:
            return self._listeners
        found = self._poller.poll(maxevents=1)
        if any(fd == self._orders.fileno() for fd, _ in found):
            self._orders.heed()
        return [one for one in self._listeners if any(fd == one.socket.fileno() for fd, _ in found)]

    def _accept(self, listener: Listener) -> Client | None:
        try:
            sock, address = listener.accept()
        except BlockingIOError:  # a tick has passed, or another worker was faster
            self._orders.check_master()
            return None
        except OSError as error:
            self._explain(error)
            return None
        if self._waker.is_mine(listener, address):
            sock.close()
            return None
        if listener.is_unix:  # which, unlike TCP, does not hand its options on
            set_tick(sock, self._tick)
        return sock, address, listener

    def _explain(self, error: OSError) -> None:
        if error.errno in FULL:
            self._full += 1
            log.warning("cannot accept: %s; waiting %.1f s", error.strerror, FULL_PAUSE)
            time.sleep(FULL_PAUSE)
        # Else the client left the queue, or its network failed: accept(2) says to try again.


def _poller(listeners: list[Listener], orders: Orders) -> select.epoll:
    poller = select.epoll()
    for listener in listeners:
        poller.register(listener.socket, select.EPOLLIN | select.EPOLLEXCLUSIVE)
    poller.register(orders, select.EPOLLIN)
    return poller
