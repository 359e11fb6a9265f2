"""The connections to Valkey or Redis, by redis-py: one publishes, the other one subscribes."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator, Sequence
from typing import Any

import redis

_PATIENCE = 2.0  # seconds for a connection, a reply, and the rest of a message
_PING_EVERY = 2.0
_SILENCE = 6.0  # seconds without a reply after which the engine is gone

Gone = (redis.RedisError, OSError, EOFError)
"""What the methods here raise if the engine is gone, or refuses."""


class Engine:
    """Both connections; the constructor connects.

    Args:
        url: Of the engine.
        pattern: Of the channels to subscribe to.
    """

    def __init__(self, url: str, pattern: bytes) -> None:
        self._pool = redis.ConnectionPool.from_url(
            url,
            protocol=2,
            socket_timeout=_PATIENCE,
            socket_connect_timeout=_PATIENCE,
            socket_keepalive=True,
        )
        self._all: list[Any] = []
        try:
            self._publisher, self._subscriber = self._connected(), self._connected()
            self._subscriber.send_command("PSUBSCRIBE", pattern)
            self._subscriber.read_response()
        except BaseException:
            self.close()
            raise
        self._heard_at = self._pinged_at = time.monotonic()

    def _connected(self) -> Any:
        connection: Any = self._pool.make_connection()
        self._all.append(connection)
        connection.connect()
        return connection

    @property
    def socket(self) -> socket.socket:
        """Readable when messages have come."""
        found: socket.socket = self._subscriber._sock
        return found

    def publish(self, messages: Sequence[tuple[bytes, bytes]]) -> None:
        """Publish messages: channels and data, all in one go."""
        commands = [("PUBLISH", channel, data) for channel, data in messages]
        self._publisher.send_packed_command(self._publisher.pack_commands(commands))
        for _ in commands:
            self._publisher.read_response()

    def messages(self, most: int) -> Iterator[tuple[bytes, bytes]]:
        """Yield messages that have come, at most so many: channel and data."""
        for _ in range(most):
            if not self._subscriber.can_read(timeout=0):
                return
            reply = self._subscriber.read_response()
            self._heard_at = time.monotonic()
            if reply[0] == b"pmessage":
                yield reply[2], reply[3]

    def turn(self) -> None:
        """Look whether the engine is still there."""
        now = time.monotonic()
        if now - self._heard_at > _SILENCE:
            raise TimeoutError("no reply")
        if now - self._pinged_at >= _PING_EVERY:
            self._pinged_at = now
            self._subscriber.send_command("PING", check_health=False)
            self._publisher.send_command("PING", check_health=False)
            self._publisher.read_response()

    def close(self) -> None:
        """End both connections."""
        for connection in self._all:
            with contextlib.suppress(*Gone):
                connection.disconnect()
