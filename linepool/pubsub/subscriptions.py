"""The subscriptions of one worker's connections, and the delivery of messages to them.

Runs in workers. The worker publishes on the bus what its connections have subscribed to, all together.
"""

from __future__ import annotations

import logging
from typing import Protocol as Interface

from attrs import evolve

from linepool.errors import ClientError
from linepool.pubsub.bus import BusEndpoint, matching
from linepool.pubsub.messages import Message, Nowhere, PubSub

log = logging.getLogger("linepool")


class Subscriber(Interface):
    """A connection that may subscribe."""

    @property
    def peer(self) -> str:
        """The address of the client."""

    def deliver(self, message: Message) -> None:
        """Send the client a message.

        Raises:
            OSError: The client is gone, or does not keep up.
        """

    def abort(self) -> None:
        """End the connection at once."""

    def fail(self) -> None:
        """End it because of an exception, which is logged."""


class Subscriptions:
    """What the connections of one worker have subscribed to.

    Args:
        endpoint: The worker's end of the bus; None: this server does not publish.
    """

    def __init__(self, endpoint: BusEndpoint | None) -> None:
        self._endpoint = endpoint
        self._topics: dict[Subscriber, list[tuple[bool, bytes]]] = {}

    @property
    def pubsub(self) -> PubSub:
        """Where messages are published."""
        return Nowhere() if self._endpoint is None else self._endpoint

    def fileno(self) -> int:
        """Return the descriptor that is readable when messages wait; -1: there is none."""
        return -1 if self._endpoint is None else self._endpoint.fileno()

    def topics(self, subscriber: Subscriber) -> list[tuple[bool, bytes]]:
        """Return what a connection has subscribed to: whether it is a pattern, and the name."""
        return self._topics.get(subscriber, [])

    def add(self, subscriber: Subscriber, topic: tuple[bool, bytes]) -> None:
        """Add a subscription.

        Raises:
            ClientError: There are too many, or this server does not publish.
        """
        if self._endpoint is None:
            raise ClientError("this server does not publish messages")
        if topic in self.topics(subscriber):
            return
        self._endpoint.subscribe([*self._all(), topic])
        self._topics.setdefault(subscriber, []).append(topic)

    def remove(self, subscriber: Subscriber, topic: tuple[bool, bytes]) -> None:
        """Remove a subscription, if there is one."""
        if self._endpoint is not None and topic in self.topics(subscriber):
            self._topics[subscriber].remove(topic)
            if not self._topics[subscriber]:
                del self._topics[subscriber]
            self._endpoint.subscribe(self._all())

    def drop(self, subscriber: Subscriber) -> None:
        """Remove all subscriptions of a connection."""
        if self._endpoint is not None and self._topics.pop(subscriber, []):
            if self._topics:
                self._endpoint.subscribe(self._all())
            else:
                self._endpoint.reset()

    def deliver(self) -> None:
        """Send out the messages that have come; a client that does not keep up is disconnected."""
        if self._endpoint is None:
            return
        for channel, data in self._endpoint.messages():
            for subscriber, topics in list(self._topics.items()):
                try:
                    for message in matching(topics, channel):
                        subscriber.deliver(evolve(message, data=data))
                except OSError:
                    _disconnect(subscriber)
                except Exception:  # noqa: BLE001 - logged
                    subscriber.fail()
        if self._endpoint.overrun:  # messages are lost, and it is not known whose
            for subscriber in list(self._topics):
                _disconnect(subscriber)

    def _all(self) -> list[tuple[bool, bytes]]:
        return [topic for topics in self._topics.values() for topic in topics]


def _disconnect(subscriber: Subscriber) -> None:
    log.warning("subscriber disconnected peer=%s reason=%r", subscriber.peer, "not keeping up")
    subscriber.abort()
