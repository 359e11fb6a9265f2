"""What a resource of the scope ``batch`` publishes with, behind its ``yield``."""

from __future__ import annotations

from typing import Any

from linepool.pubsub.messages import PubSub


class PublishedAtEnd(PubSub):
    """Publishes when a batch has ended, so that subscribers find what was done in it.

    Args:
        conversation: That of the batch's connection.
    """

    def __init__(self, conversation: Any) -> None:
        self._conversation = conversation

    @property
    def _pubsub(self) -> PubSub:
        pubsub: PubSub = self._conversation.connection.pubsub
        return pubsub

    def publish(self, channel: bytes, message: bytes) -> int:
        """Send a message; return the number of subscriptions it goes to.

        Raises:
            RuntimeError: The batch has not ended.
        """
        if self._conversation.resources.is_open:
            raise RuntimeError("a resource of a batch can publish only behind its yield")
        return self._pubsub.publish(channel, message)

    def receivers(self, channel: bytes) -> int:
        """Return how many subscriptions a message would go to."""
        return self._pubsub.receivers(channel)

    def channels(self, pattern: bytes = b"*") -> list[bytes]:
        """Return the channels that have subscribers by name and match a pattern."""
        return self._pubsub.channels(pattern)

    def subscribers(self, channel: bytes) -> int:
        """Return the number of subscriptions to a channel by its name."""
        return self._pubsub.subscribers(channel)

    def patterns(self) -> int:
        """Return the number of patterns that have subscribers."""
        return self._pubsub.patterns()
