"""A connection in a worker with the compiled core: what the core hands over, and what it has accepted.

Runs in workers. The core serves the plain turns of a connection by itself, and uses some of its fields.
"""

from __future__ import annotations

import socket
from collections.abc import Generator
from functools import partial
from time import monotonic_ns
from typing import Any

from linepool import core
from linepool.kernel.sockets import as_connection
from linepool.protocols.base import Request
from linepool.session import Session
from linepool.worker.connection import Connection
from linepool.worker.context import WorkerContext
from linepool.worker.transport import Transport


class CoreConnection(Connection):
    """A connection whose turns the compiled core may begin."""

    @classmethod
    def complete(
        cls, accepted: core.ConnectionFields, session: Session, context: WorkerContext
    ) -> None:
        """Make all else of a connection that the compiled core has accepted."""
        accepted.__class__ = cls
        assert isinstance(accepted, CoreConnection)
        try:
            sock = as_connection(accepted.descriptor)
        except OSError:  # a handler has closed it
            sock = socket.socket()
            sock.close()
        transport = Transport(sock, context.settings.write_timeout)
        accepted._set_up(transport, session, context)

    def take_over(
        self,
        replies: bytes,
        unread: bytes,
        received: int = 0,
        *,
        more: bool = False,
        stream: tuple[Generator[bytes, None, None], Request] | None = None,
    ) -> None:
        """Continue a turn that the compiled core has begun and published.

        Args:
            replies: What it has not sent of the replies to the requests that it has served.
            unread: What the client has sent and the core has not served.
            received: How many bytes it has read last; after a full chunk, more are read.
            more: What is unread waits for the next turn.
            stream: The reply in parts that comes after ``replies``, with its request; ``unread``
                comes after it.
        """
        conversation = self.conversation
        if replies:
            self._replies.append(replies)
        try:
            if unread and not conversation.closing:
                self.is_replaceable = False
                conversation.feed(unread)
                self.lost_framing |= conversation.closing
            if stream is None or self._context.safe_point.run(partial(self._begin_stream, *stream)):
                if stream is not None:
                    self._board.finish(1, self._board.running_ns(monotonic_ns()))
                    self.served = True
                self.more = more
                if not more:
                    self._answer(received)
                elif conversation.errors:
                    self._board.count_errors(*conversation.take_errors())
            self._transport.flush()
        except OSError:
            self.abort()
        self._end_turn()


class AcceptedConnection(core.ConnectionFields):
    """A connection that the compiled core has accepted: only the fields that the core uses.

    At the first use of anything else it becomes a ``CoreConnection``, see ``CoreConnection.complete``.
    """

    def __getattr__(self, name: str) -> Any:
        self.make()
        return getattr(self, name)
