"""Messages, and where a handler publishes them. Pure: no I/O, no clock."""

from __future__ import annotations

from abc import ABC, abstractmethod

from attrs import frozen


@frozen
class Message:
    """What somebody published.

    Attributes:
        channel: Where.
        data: What.
        pattern: The subscribed pattern that the channel fits; None: it was subscribed by its name.
    """

    channel: bytes
    data: bytes
    pattern: bytes | None = None


class PubSub(ABC):
    """Messages to all who have subscribed, in whichever worker of this machine they are.

    Handed in by annotation. A protocol must say that it publishes (``Protocol.publishes``); with
    another, there are no subscribers.
    """

    @abstractmethod
    def publish(self, channel: bytes, message: bytes) -> int:
        """Send a message; return how many subscriptions it goes to.

        A subscriber that does not keep up is disconnected, after a second in which this waits.
        """

    @abstractmethod
    def channels(self, pattern: bytes = b"*") -> list[bytes]:
        """Return the channels that have subscribers, those that fit a pattern."""

    @abstractmethod
    def subscribers(self, channel: bytes) -> int:
        """Return how many have subscribed to a channel by its name."""

    @abstractmethod
    def patterns(self) -> int:
        """Return how many patterns have subscribers."""


class Nowhere(PubSub):
    """Publishes to nobody."""

    def publish(self, channel: bytes, message: bytes) -> int:
        """Return 0."""
        return 0

    def channels(self, pattern: bytes = b"*") -> list[bytes]:
        """Return none."""
        return []

    def subscribers(self, channel: bytes) -> int:
        """Return 0."""
        return 0

    def patterns(self) -> int:
        """Return 0."""
        return 0
