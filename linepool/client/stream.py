"""A reply of several values, as they come."""

from __future__ import annotations

from linepool.client.core import Event, Kind, ProtocolError
from linepool.client.deadlines import deadline_of
from linepool.client.endpoint import Place
from linepool.client.errors import named
from linepool.client.flow import Flow, failure_of, milliseconds_until, unless_refused
from linepool.client.hooks import Observed
from linepool.client.request import Prepared
from linepool.errors import LinepoolError


class Stream:
    """The reply to one request, value by value.

    Args:
        flow: The connections.
        request: The request, which is sent when the first value is asked for.
        timeout: Seconds to wait for each value; None: without limit.
    """

    def __init__(self, flow: Flow, request: Prepared, timeout: float | None) -> None:
        self._flow = flow
        self._request = request
        self._timeout = timeout
        self._place: Place | None = None
        self._observed: Observed | None = None

    async def next(self) -> Event:
        """Return an ITEM or a VALUE, or END.

        Raises:
            ReplyError: The stream, or what remained of it, is an error.
            ConnectionFailed: The connection has ended.
            CallTimeout: The next value did not come in time.
        """
        if self._observed is None:
            self._observed = Observed(self._flow.hooks, (self._request,), self._flow._core)
        try:
            return await self._next(self._observed)
        except BaseException as error:
            if isinstance(error, LinepoolError):
                named(error, self._request.name)
            self._observed.end(error)
            raise

    async def _next(self, observed: Observed) -> Event:
        deadline = deadline_of(self._timeout)
        if self._place is None:
            # The timeout is for each value, but a deadline for all of them.
            wait_ms = milliseconds_until(deadline_of(None))
            self._place = await self._flow._begin(observed, deadline, wait_ms)
        place = self._place
        connection = place.connection
        assert connection is not None
        try:
            while True:
                if (event := connection.core.event()) is None:
                    connection.core.feed(await connection.wire.recv(deadline))
                elif unless_refused(event)[0] is Kind.ERROR:
                    raise event[1]
                elif event[0] not in (Kind.OPENING, Kind.PUSH):
                    return event
        except (OSError, ProtocolError) as error:
            if isinstance(error, LinepoolError):
                raise
            raise failure_of(error, place) from error

    def close(self) -> None:
        """Give the connection back; if the reply was not complete, close it."""
        place, self._place = self._place, None
        if place is not None:
            assert place.connection is not None
            self._flow.end(place, is_kept=place.connection.core.is_at_rest)
        if self._observed is not None:
            self._observed.end()
