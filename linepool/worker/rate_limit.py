"""How many requests per second one address, or one user of unix sockets, may send. Runs in workers."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from attrs import evolve

from linepool.errors import NotRunError
from linepool.ipc.board import WorkerView
from linepool.kernel.sockets import address_of_text, origin_of, user_number
from linepool.protocols.base import Request
from linepool.service import Service
from linepool.session import Session
from linepool.settings import Settings

log = logging.getLogger("linepool")

_LOG_EVERY = 1.0  # seconds between two lines of one worker: many requests are refused at once


@lru_cache(maxsize=4096)
def _origin(peer: str) -> int:
    try:
        return origin_of(address_of_text(peer))
    except (OSError, ValueError):  # a handler has changed it
        return 0


class RateLimit:
    """The limit, as middleware ahead of the app's own: the handler of a refused request does not run.

    The compiled core counts the requests that it serves itself.

    Attributes:
        rates: The buckets.
    """

    def __init__(self, settings: Settings, board: WorkerView) -> None:
        rate, burst = settings.max_requests_per_second, settings.request_burst
        self.rates = board.rates(rate, burst or max(1, round(rate)))
        self._why = f"busy: more than {rate:g} requests per second from your {{}}; try again later"
        self._board = board
        self._next_log_at = 0.0

    @staticmethod
    def client(session: Session) -> int:
        """Return the number by which a client is counted, of its address or its user; 0: neither is known."""
        if session.uid is None:
            return _origin(session.peer)
        return user_number(session.uid)

    def __call__(
        self, request: Request, session: Session, call_next: Callable[[Request], Any]
    ) -> Any:
        """Have a request done, or refuse it."""
        client = 0 if request.waited.times else self.client(session)
        if client and not self.rates.admits(client):
            raise self.refusal(session)
        return call_next(request)

    def refusal(self, session: Session) -> NotRunError:
        """Return the error for a request that is refused, which is counted, and logged now and then."""
        self._board.count_limited()
        now = time.monotonic()
        if now >= self._next_log_at:
            self._next_log_at = now + _LOG_EVERY
            peer = session.peer if session.uid is None else f"{session.peer} uid={session.uid}"
            listener = session.listener
            log.warning("requests refused: too many per second peer=%s listener=%s", peer, listener)
        return NotRunError(self._why.format("address" if session.uid is None else "user"))


def limit_of(service: Service) -> RateLimit | None:
    """Return the limit that a service has; None: it has none."""
    outermost = next(iter(service.middleware), None)
    return outermost if isinstance(outermost, RateLimit) else None


def limited(service: Service, settings: Settings, board: WorkerView) -> Service:
    """Return a service with the limit that the settings say, in place of any that it has."""
    own = [layer for layer in service.middleware if not isinstance(layer, RateLimit)]
    if settings.max_requests_per_second:
        return evolve(service, middleware=[RateLimit(settings, board), *own])
    return service if len(own) == len(service.middleware) else evolve(service, middleware=own)
