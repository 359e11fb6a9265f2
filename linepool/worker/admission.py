"""Which new clients are served, and under which name.

Runs in workers. Makes no system call that waits, but for a moment at a limit that seems to be reached,
and does not know the loop: it says what to do.
"""

from __future__ import annotations

import itertools
import logging
import os
import time
from collections.abc import Callable

from linepool.errors import TOO_MANY, TOO_MANY_FROM_ONE
from linepool.kernel.listeners import Listener
from linepool.kernel.sockets import UnixPeer, address_text
from linepool.session import Session
from linepool.worker.context import WorkerContext

log = logging.getLogger("linepool")

_LOOKS = 10
"""How often a count is read before a client is refused for it ..."""
_LOOK_EVERY = 0.0005
"""... and how many seconds later each time."""
_SURE_FOR = 0.1
"""For how many seconds after a refusal one look is enough: many that are refused cost little."""


class Admission:
    """The admission of new clients to one worker.

    Attributes:
        enough: While there are fewer connections, none is refused.
    """

    def __init__(self, context: WorkerContext) -> None:
        self._context = context
        self._board = context.board
        settings = context.settings
        self._most, self._most_from_one = settings.max_connections, settings.address_limit
        self.enough = min(self._most, self._most_from_one)
        self._refused_at = 0.0  # on the monotonic clock
        pid = os.getpid()
        self._ids = (f"{pid}-{number}" for number in itertools.count(1))

    def session(self, address: object, listener: Listener) -> Session:
        """Return the session of a new connection.

        Args:
            address: Of the client, as accept() gave it.
            listener: The one that it connected to.
        """
        credentials = (
            address.credentials if isinstance(address, UnixPeer) and address.is_known else None
        )
        session = Session(next(self._ids), address_text(address), listener.name, credentials)
        session.starttls = self._context.of(listener.name).settings.starttls
        return session

    def denies(self, address: object, listener: str, *, is_announced: bool = False) -> bool:
        """Whether a new client may not connect, which is counted; then it is sent nothing.

        Args:
            address: Of its peer, as accept() gave it, or of the client that a proxy has announced.
            listener: The name of the one that it connected to.
            is_announced: The latter.
        """
        gate = self._context.of(listener).gate
        if not (gate.denies(address) if is_announced else gate.denies_peer(address)):
            return False
        log.warning("denied a client peer=%s listener=%s", address_text(address), listener)
        self._board.count_denied()
        return True

    def refusal(self, address: object, origin: int, listener: str) -> bytes:
        """Return what a new client is sent that is refused, which is counted; b"": it is served.

        Args:
            address: Of the client, as accept() gave it.
            origin: What ``origin_of`` says of it.
            listener: The name of the one that it connected to.
        """
        board, settings = self._board, self._context.settings
        if board.has_room_for(settings.hot_connections, self.enough):
            return b""  # without a look at all workers
        if settings.has_parker and self._is_reached(board.connections, self._most):
            why = TOO_MANY
        elif origin and self._is_reached(
            lambda: board.connections_from(origin), self._most_from_one
        ):
            why = TOO_MANY_FROM_ONE
        else:
            return b""
        self._refused_at = time.monotonic()
        log.warning("refused a client peer=%s why=%r", address_text(address), why)
        board.count_refused()
        return self._context.of(listener).service.refusal(why)

    def _is_reached(self, count: Callable[[], int], limit: int) -> bool:
        """Whether a limit is reached, and not only for a moment.

        A connection that moves between a worker and the parker may be counted by both, or, while it is in the
        channel, by neither: then a client beyond the limit is served.
        """
        looks = _LOOKS if time.monotonic() - self._refused_at > _SURE_FOR else 1
        while count() >= limit:
            looks -= 1
            if not looks:
                return True
            time.sleep(_LOOK_EVERY)
        return False
