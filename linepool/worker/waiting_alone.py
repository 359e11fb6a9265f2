"""Requests that wait in the scheme ``accept``: each holds its worker, and is woken over the bus.

Runs in workers. There is no parker that would know an order of arrival: all that wait for a topic look again.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Mapping

from linepool.ipc.board import WorkerView
from linepool.ipc.waiting import Why
from linepool.kernel.features import POLLRDHUP
from linepool.kernel.sockets import DONTWAIT, LONGEST_WAIT
from linepool.pubsub.bus import BusEndpoint
from linepool.pubsub.messages import Message
from linepool.pubsub.subscriptions import Subscriptions
from linepool.worker.connection import Connection
from linepool.worker.waiting import WaitingRequests

_PREFIX = b"\0waits\0"
"""Of the channels by which requests are woken; those of clients do not begin so by chance."""
_GONE = (POLLRDHUP or select.POLLIN) | select.POLLHUP | select.POLLERR


class WaitingAlone(WaitingRequests):
    """The request that waits in a worker.

    Args:
        board: The worker's.
        channel: Its end of its channel.
        subscriptions: By which it hears of what others wake.
        endpoint: By which it wakes others; None: no request of the app's can wait.
    """

    peer = ""
    has_parker = False

    def __init__(
        self,
        board: WorkerView,
        channel: socket.socket,
        subscriptions: Subscriptions,
        endpoint: BusEndpoint | None,
    ) -> None:
        super().__init__(board, channel)
        self._subscriptions = subscriptions
        self._endpoint = endpoint
        self._topic = b""  # by which it was woken
        self._is_woken = False

    def wake(self, topics: Mapping[bytes, int]) -> None:
        """Wake requests by topic."""
        if self._endpoint is not None:
            for topic in topics:
                self._endpoint.deliver(_PREFIX + topic, b"")

    def settle(self, number: int) -> None:
        """Do nothing: all have been woken."""

    def pass_on(self, topic: bytes) -> None:
        """Do nothing, likewise."""

    def deliver(self, message: Message) -> None:
        """Note that a topic was woken; called by the subscriptions."""
        self._is_woken, self._topic = True, message.channel.removeprefix(_PREFIX)

    def abort(self) -> None:
        """Note that messages were lost, so it may have been woken; likewise."""
        self._is_woken = True

    fail = abort

    def wait(self, connection: Connection, orders: tuple[int, ...]) -> bool:
        """Have the request of a connection wait for its next run, or for an order.

        Args:
            connection: Its request waits.
            orders: Descriptors that are readable when there is one.

        Returns:
            Whether there may be an order.
        """
        waiting = connection.waiting
        assert waiting is not None
        wanted = [(False, _PREFIX + topic) for topic in waiting.topics]
        if self._subscriptions.topics(self) != wanted:
            self.hear_no_more()
            for topic in wanted:
                self._subscriptions.add(self, topic)
            self._is_woken = True  # what has come before this is found only by another look
        poller = select.poll()
        poller.register(connection.socket, _GONE)
        for descriptor in (*orders, self._subscriptions.fileno()):
            poller.register(descriptor, select.POLLIN)
        while not self._is_woken:
            left = waiting.deadline - time.monotonic()
            if left <= 0:
                waiting.why = Why.EXPIRED
                connection.resume(waiting, 0)
                return False
            ready = {one for one, _ in poller.poll(min(left, LONGEST_WAIT) * 1000)}
            if connection.descriptor in ready and not POLLRDHUP and _has_sent(connection.socket):
                poller.unregister(connection.socket)  # it has not gone, and is not asked again
            elif connection.descriptor in ready:
                connection.leave()
                return False
            if ready.intersection(orders):
                return True
            if ready:
                self._subscriptions.deliver()
        waiting.why, waiting.topic = Why.WOKEN, self._topic
        self._is_woken, self._topic = False, b""
        connection.resume(waiting, 0)
        return False

    def hear_no_more(self) -> None:
        """Note that no request waits any more."""
        self._subscriptions.drop(self)


def _has_sent(sock: socket.socket) -> bool:
    """Whether a client that is readable has sent something, and not its end."""
    try:
        return bool(sock.recv(1, socket.MSG_PEEK | DONTWAIT))
    except BlockingIOError:
        return True
    except OSError:
        return False
