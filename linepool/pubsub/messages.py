"""Messages, and the interface by which a handler publishes them. Pure: no I/O, no clock."""

from __future__ import annotations

from abc import ABC, abstractmethod

from attrs import frozen


@frozen
class Message:
    """A published message, as one subscription receives it.

    Attributes:
        channel: The channel's name.
        data: The message.
        pattern: The subscribed pattern that matches the channel; None: subscribed by its name.
    """

    channel: bytes
    data: bytes
    pattern: bytes | None = None


class PubSub(ABC):
    """Publishes messages to subscribed connections in all workers, and with ``bridge`` on other machines.

    Injected by annotation. Only a protocol with ``Protocol.publishes`` has subscribers.
    """

    @abstractmethod
    def publish(self, channel: bytes, message: bytes) -> int:
        """Send a message; return the number of subscriptions on this machine that it goes to.

        Waits up to a second for a subscriber that does not keep up, then disconnects it.
        """

    @abstractmethod
    def receivers(self, channel: bytes) -> int:
        """Return how many subscriptions on this machine a message to a channel would go to."""

    @abstractmethod
    def channels(self, pattern: bytes = b"*") -> list[bytes]:
        """Return the channels that have subscribers by name and match a pattern."""

    @abstractmethod
    def subscribers(self, channel: bytes) -> int:
        """Return the number of subscriptions to a channel by its name."""

    @abstractmethod
    def patterns(self) -> int:
        """Return the number of patterns that have subscribers."""


class Nowhere(PubSub):
    """A PubSub without subscribers."""

    def publish(self, channel: bytes, message: bytes) -> int:
        """Return 0."""
        return 0

    def receivers(self, channel: bytes) -> int:
        """Return 0."""
        return 0

    def channels(self, pattern: bytes = b"*") -> list[bytes]:
        """Return an empty list."""
        return []

    def subscribers(self, channel: bytes) -> int:
        """Return 0."""
        return 0

    def patterns(self) -> int:
        """Return 0."""
        return 0
