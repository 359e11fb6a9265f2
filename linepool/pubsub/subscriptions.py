"""The audience: which of a worker's clients have subscribed to what, and how messages reach them.

Runs in workers. The worker shows on the bus what all of its clients together listen to.
"""

from __future__ import annotations

import logging
from typing import Protocol as Interface

from attrs import evolve

from linepool.errors import ClientError
from linepool.pubsub.bus import Desk, fitting
from linepool.pubsub.messages import Message, Nowhere, PubSub

log = logging.getLogger("linepool")


class Listening(Interface):
    """A connection that may subscribe."""

    @property
    def peer(self) -> str:
        """Who is at the other end."""

    def deliver(self, message: Message) -> None:
        """Send the client a message.

        Raises:
            OSError: The client is gone, or does not keep up.
        """

    def give_up(self) -> None:
        """End the connection at once."""


class Audience:
    """The subscribers among the clients of one worker.

    Args:
        desk: The worker's place at the bus; None: nothing is published here.
    """

    def __init__(self, desk: Desk | None) -> None:
        self._desk = desk
        self._topics: dict[Listening, list[tuple[bool, bytes]]] = {}

    @property
    def pubsub(self) -> PubSub:
        """Where messages are published."""
        return Nowhere() if self._desk is None else self._desk

    def fileno(self) -> int:
        """Return the descriptor that is readable when messages wait; -1: nobody can subscribe."""
        return -1 if self._desk is None else self._desk.fileno()

    def topics(self, who: Listening) -> list[tuple[bool, bytes]]:
        """Return the patterns and channels that a client listens to."""
        return self._topics.get(who, [])

    def add(self, who: Listening, topic: tuple[bool, bytes]) -> None:
        """Note a subscription.

        Raises:
            ClientError: There are too many, or nothing is published here.
        """
        if self._desk is None:
            raise ClientError("this server publishes nothing")
        if topic in self.topics(who):
            return
        self._desk.listen([*self._all(), topic])
        self._topics.setdefault(who, []).append(topic)

    def remove(self, who: Listening, topic: tuple[bool, bytes]) -> None:
        """Forget a subscription, if there is one."""
        if self._desk is not None and topic in self.topics(who):
            self._topics[who].remove(topic)
            if not self._topics[who]:
                del self._topics[who]
            self._desk.listen(self._all())

    def drop(self, who: Listening) -> None:
        """Forget a client."""
        if self._desk is not None and self._topics.pop(who, []):
            if self._topics:
                self._desk.listen(self._all())
            else:
                self._desk.reset()

    def deliver(self) -> None:
        """Send the clients the messages that have come for them; who does not keep up is cut off."""
        if self._desk is None:
            return
        for channel, data in self._desk.messages():
            for who, topics in list(self._topics.items()):
                try:
                    for message in fitting(topics, channel):
                        who.deliver(evolve(message, data=data))
                except OSError:
                    self._cut_off(who)
        if self._desk.overrun:  # messages are lost, and nobody knows whose
            for who in list(self._topics):
                self._cut_off(who)

    def _cut_off(self, who: Listening) -> None:
        log.warning("subscriber cut off peer=%s why=%r", who.peer, "it does not keep up")
        who.give_up()

    def _all(self) -> list[tuple[bool, bytes]]:
        return [topic for topics in self._topics.values() for topic in topics]
