"""What a handler may do with the connection that it serves.

Runs in workers. A handle is made when a handler first asks for the connection, which pins the
connection to its worker.
"""

from __future__ import annotations

import time

from linepool.conversation import Conversation
from linepool.pubsub.messages import PubSub
from linepool.pubsub.subscriptions import Subscriber
from linepool.session import Connection
from linepool.worker.context import WorkerContext
from linepool.worker.streaming import Pushes
from linepool.worker.transport import Transport


class Handle(Connection):
    """The live connection, for a handler."""

    def __init__(
        self,
        connection: Subscriber,
        conversation: Conversation,
        context: WorkerContext,
        transport: Transport,
    ) -> None:
        self._connection = connection
        self._conversation = conversation
        self._board = context.board
        self._subscriptions = context.subscriptions
        self._pushes = Pushes(conversation, transport, context)

    @property
    def peer(self) -> str:
        """The address of the client."""
        return self._connection.peer

    def close(self) -> None:
        """Close after the reply of this request; nothing behind it is executed."""
        self._conversation.closing = True

    def push(self, value: object) -> None:
        """Send a value now, encoded as a reply, after the replies to earlier requests.

        Raises:
            OSError: The client is gone, or does not read.
            TypeError, ValueError: No reply is defined for the value.
        """
        self._pushes.push(value)

    def extend(self, seconds: float) -> None:
        """Move the deadline of the request in flight to this many seconds from now."""
        self._board.extend(time.monotonic_ns(), int(seconds * 1e9))

    def subscribe(self, topic: bytes, *, pattern: bool = False) -> None:
        """Have messages sent to this connection."""
        self._subscriptions.add(self._connection, (pattern, topic))
        self._conversation.pinned = True

    def unsubscribe(self, topic: bytes, *, pattern: bool = False) -> None:
        """Remove a subscription."""
        self._subscriptions.remove(self._connection, (pattern, topic))

    def subscriptions(self, *, pattern: bool = False) -> list[bytes]:
        """Return the channels, or the patterns, that this connection has subscribed to."""
        topics = self._subscriptions.topics(self._connection)
        return [name for is_pattern, name in topics if is_pattern == pattern]

    @property
    def pubsub(self) -> PubSub:
        """Where messages are published."""
        return _Publisher(self._subscriptions.pubsub, self._conversation)


class _Publisher(PubSub):
    """Publishes, but first ends the batch: a subscriber may act on what was done in it."""

    def __init__(self, pubsub: PubSub, conversation: Conversation) -> None:
        self._pubsub = pubsub
        self._conversation = conversation

    def publish(self, channel: bytes, message: bytes) -> int:
        """Send a message; return the number of subscriptions it goes to."""
        self._conversation.end_batch_early()
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
