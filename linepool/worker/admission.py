"""Which new clients are served, and under which name.

Runs in workers. Makes no system call that waits, and does not know the loop: it says what to do.
"""

from __future__ import annotations

import itertools
import os

from linepool.kernel.listeners import Listener
from linepool.kernel.sockets import address_text
from linepool.session import Session
from linepool.worker.context import WorkerContext


class Admission:
    """The admission of new clients to one worker."""

    def __init__(self, context: WorkerContext) -> None:
        self._context = context
        self._board = context.board
        pid = os.getpid()
        self._ids = (f"{pid}-{number}" for number in itertools.count(1))

    def session(self, address: object, listener: Listener) -> Session:
        """Return the session of a new connection.

        Args:
            address: Of the client, as accept() gave it.
            listener: The one that it connected to.
        """
        return Session(next(self._ids), address_text(address), listener.name)

    def is_full(self) -> bool:
        """Whether the server has too many connections already, this one not counted."""
        board, settings = self._board, self._context.settings
        most = settings.max_connections
        if board.has_room_for(settings.hot_connections, most):
            return False  # without a look at all workers
        return board.connections() >= most

    def refuse(self) -> bytes:
        """Count a refusal; return what the client is sent."""
        self._board.count_refused()
        return self._context.service.busy_reply()
