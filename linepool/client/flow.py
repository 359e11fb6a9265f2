"""Calls from their beginning to their end: a connection, the request, its reply, and retries.

Written once, as coroutines over an interface for I/O: that of asyncio suspends them, that of the blocking
client blocks and never does. All times are seconds on the monotonic clock.
"""

from __future__ import annotations

import math
import os
import random
import weakref
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Protocol as Interface

from linepool.client.core import Core, Event, Kind, ProtocolError
from linepool.client.deadlines import deadline_of
from linepool.client.endpoint import Connection, Endpoint, Place, Waiter, Wire, choose
from linepool.client.errors import CallTimeout, ConnectionFailed, named
from linepool.client.hooks import Hook, Observed
from linepool.client.login import Credentials
from linepool.client.request import Prepared
from linepool.client.security import secured, set_contexts
from linepool.client.sockets import TlsError, TlsOptions
from linepool.errors import LinepoolError

_FIRST_BACKOFF_S = 0.02
_MOST_BACKOFF_S = 1.0
_MOST_SENDS = 3
_MOST_TOKENS = 10.0
_PER_CALL = 0.1
_MOST_WAIT_MS = 999_999_999
_CLOSED = "the client is closed"
_NONE: frozenset[Endpoint] = frozenset()


class IO(Interface):
    """How a client connects and waits."""

    async def connect(self, target: str | tuple[str, int], deadline: float) -> Wire:
        """Return the socket of a new connection; raises OSError, which is TimeoutError at the deadline."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""

    def waiter(self) -> Waiter:
        """Return what waits for a free connection."""


class Flow:
    """The connections of a client, and its calls on them.

    Args:
        io: How it connects and waits.
        addresses: Of servers that serve the same, one at least.
        core: Makes the bytes of a new connection.
        connect_timeout: Seconds to try to connect, in all.
        max_connections: Most connections to each address.
        retries: Whether anything is tried again.
        tls: Which connections have TLS, and how.
        hooks: Around each call.
        credentials: With which each connection begins; None: with none.

    Raises:
        ValueError: An address, a number or a file is wrong; the text says what would be right.
    """

    def __init__(  # noqa: PLR0913 - options
        self,
        io: IO,
        addresses: Sequence[str],
        *,
        core: Callable[[], Core],
        connect_timeout: float,
        max_connections: int,
        retries: bool,
        tls: TlsOptions,
        hooks: Sequence[Hook] = (),
        credentials: Credentials | None = None,
    ) -> None:
        if not addresses:
            raise ValueError("a client needs an address, such as 127.0.0.1:7000")
        if max_connections < 1:
            raise ValueError(f"max_connections must be 1 or more, not {max_connections}")
        check_seconds(connect_timeout, "connect_timeout")
        self._io = io
        self._core = core
        self._credentials = credentials
        self._endpoints = [Endpoint(name, max_connections) for name in addresses]
        set_contexts(self._endpoints, tls)
        self._connect_timeout = connect_timeout
        self._retries = retries
        if callable(hooks) or not all(map(callable, hooks)):
            raise ValueError(f"hooks must be a list of generator functions, not {hooks!r}")
        self.hooks = tuple(hooks)
        self._tokens = _MOST_TOKENS
        self._is_closed = False
        _flows.add(self)

    async def call(self, request: Prepared, timeout: float | None, *, is_idempotent: bool) -> Event:
        """Return the whole reply: a VALUE or SEVERAL.

        Raises:
            ReplyError: The reply is an error.
            ConnectionFailed: There is no reply.
            CallTimeout: There was none in time.
        """
        try:
            with Observed(self.hooks, (request,), self._core) as observed:
                deadline = deadline_of(timeout)
                return await self._call(observed, deadline, is_idempotent=is_idempotent)
        except LinepoolError as error:
            named(error, request.name)
            raise

    async def _call(self, observed: Observed, deadline: float, *, is_idempotent: bool) -> Event:
        failures = 0
        self._tokens = min(self._tokens + _PER_CALL, _MOST_TOKENS)
        while True:
            try:
                kind, value = event = await self._attempt(observed, deadline)
            except ConnectionFailed as error:
                failures += 1
                if not (error.was_sent and is_idempotent and self._may_retry(failures)):
                    raise
                await self._back_off(failures, deadline, error)
                observed.again()
                continue
            if kind is Kind.ERROR:
                raise value
            return event

    def ready(self) -> Place | None:
        """Return a place whose connection a request can be sent on now; None: there is none at hand."""
        endpoint = choose(self._endpoints, _NONE)
        place = endpoint.take_last()
        if place is None:
            return None
        assert place.connection is not None
        if place.connection.wire.is_quiet():
            return place
        self.end(place, is_kept=False)
        return None

    async def pipeline(self, requests: Sequence[Prepared], timeout: float | None) -> list[Event]:
        """Send requests on one connection; return for each a VALUE, SEVERAL or an ERROR.

        Raises:
            ConnectionFailed: They could not be sent.
            CallTimeout: They could not be sent in time.
        """
        if not requests:
            return []
        with Observed(self.hooks, requests, self._core) as observed:
            deadline = deadline_of(timeout)
            events = await self._pipeline(observed, deadline)
            observed.note(events)
        return events

    async def _pipeline(self, observed: Observed, deadline: float) -> list[Event]:
        requests = observed.requests
        place = await self._begin(observed, deadline, milliseconds_until(deadline))
        assert place.connection is not None
        core = place.connection.core
        events: list[Event] = []
        is_kept = False
        try:
            while len(events) < len(requests):
                if (event := core.reply()) is not None:
                    if unless_refused(event)[0] is Kind.ERROR:
                        named(event[1], requests[len(events)].name)
                    events.append(event)
                else:
                    core.feed(await place.connection.wire.recv(deadline))
            is_kept = core.is_at_rest
        except (OSError, ProtocolError, LinepoolError) as error:
            events += [
                (Kind.ERROR, named(failure_of(error, place), one.name))
                for one in requests[len(events) :]
            ]
        finally:
            self.end(place, is_kept=is_kept)
        return events

    def close(self) -> None:
        """Close all idle connections now, and the others after their calls."""
        self._is_closed = True
        for endpoint in self._endpoints:
            for place in endpoint.take_idle():
                self.end(place, is_kept=False)

    def forget(self) -> None:
        """Start without connections, in a forked process or another event loop."""
        for endpoint in self._endpoints:
            for connection in endpoint.forget():
                connection.wire.forget()

    async def _attempt(self, observed: Observed, deadline: float) -> Event:
        place = await self._begin(observed, deadline, milliseconds_until(deadline))
        connection = place.connection
        assert connection is not None
        core = connection.core
        is_kept = False
        try:
            while (event := core.reply()) is None:
                core.feed(await connection.wire.recv(deadline))
            unless_refused(event)
            is_kept = core.is_at_rest
        except (OSError, ProtocolError) as error:
            raise failure_of(error, place) from error
        finally:
            self.end(place, is_kept=is_kept)
        return event

    async def _begin(self, observed: Observed, deadline: float, wait_ms: int) -> Place:
        """Send requests; return the place of the connection on which they were.

        A request of which not all bytes have been taken is not run: it is sent again, on another connection.
        """
        requests = observed.requests
        failures = 0
        while True:
            place = await self._take(deadline)
            observed.take(place.endpoint.name)
            connection = place.connection
            assert connection is not None
            is_kept = False
            try:
                request = connection.core.request
                data = [request(*one, wait_ms) for one in requests]
                await connection.wire.send(b"".join(data), deadline)
                is_kept = True
            except OSError as error:
                was_sent = len(requests) > 1
                failure = failure_of(error, place, was_sent=was_sent)
                failures += 1
                if was_sent or not self._retries or failures == _MOST_SENDS:
                    raise failure from error
                await self._back_off(failures, deadline, failure)
                observed.again()
            else:
                return place
            finally:
                if not is_kept:
                    self.end(place, is_kept=False)

    async def _take(self, deadline: float) -> Place:
        """Return a place with a connection that can be used."""
        until = math.inf
        failures = 0
        failure: ConnectionFailed | None = None
        refused: set[Endpoint] = set()
        while True:
            place = await self._free_place(refused, deadline)
            endpoint = place.endpoint
            if place.connection is not None:
                if place.connection.wire.is_quiet():
                    return place
                _close(place)
            until = min(until, deadline, monotonic() + self._connect_timeout)
            try:
                await self._connect(place, until)
            except (OSError, UnicodeError) as error:  # the latter: not a name that DNS can have
                refused.add(endpoint)
                if failure is None or not isinstance(error, TimeoutError):  # it says more than that
                    failure = ConnectionFailed(
                        f"cannot connect to {endpoint.name}: {_reason(error)}"
                    )
                if len(refused) == len(self._endpoints):
                    if not self._retries or isinstance(error, TlsError):
                        raise failure from error
                    refused.clear()
                    await self._back_off(failures, until, failure)
                    failures += 1
            else:
                return place

    async def _free_place(self, refused: set[Endpoint], deadline: float) -> Place:
        """Return a place for a connection to one of the endpoints."""
        while True:
            if self._is_closed:
                raise ConnectionFailed(_CLOSED)
            endpoint = choose(self._endpoints, refused)
            place = endpoint.take() or await endpoint.wait(self._io.waiter(), deadline)
            if place is not None:
                return place
            if monotonic() >= deadline:
                raise CallTimeout(f"no connection to {endpoint.name} was free in time")

    async def _connect(self, place: Place, deadline: float) -> None:
        core = self._core()
        try:
            wire = await self._io.connect(place.endpoint.target, deadline)
            if place.endpoint.context is not None:
                wire = await secured(wire, place.endpoint, deadline)
            if self._credentials is not None:
                await self._log_in(self._credentials, wire, core, place.endpoint.name, deadline)
        except BaseException as error:
            if isinstance(error, OSError | UnicodeError):
                place.endpoint.refused()
            place.endpoint.put(place)
            raise
        place.endpoint.accepted()
        place.connection = Connection(wire, core)

    @staticmethod
    async def _log_in(
        credentials: Credentials, wire: Wire, core: Core, name: str, deadline: float
    ) -> None:
        try:
            await credentials.log_in(wire, core, name, deadline)
        except BaseException:
            wire.close()
            raise

    def _may_retry(self, failures: int) -> bool:
        """Whether to send again what may have been run; a budget keeps that to few calls."""
        if not self._retries or failures == _MOST_SENDS or self._tokens < _MOST_TOKENS / 2:
            return False
        self._tokens -= 1
        return True

    async def _back_off(self, failures: int, deadline: float, failure: Exception) -> None:
        """Wait before the next try; raise the failure if no time is left for one."""
        wait_s = random.random() * min(_FIRST_BACKOFF_S * 2**failures, _MOST_BACKOFF_S)  # noqa: S311
        if monotonic() + wait_s >= deadline:
            raise failure
        await self._io.sleep(wait_s)
        if monotonic() >= deadline:  # a sleep may be longer than asked for
            raise failure

    def end(self, place: Place, *, is_kept: bool) -> None:
        """Give a place back after a call."""
        if not is_kept or self._is_closed:
            _close(place)
        place.endpoint.put(place)


def check_seconds(seconds: float, name: str) -> None:
    """Raise ValueError for what is no time to wait."""
    if not 0 < seconds < math.inf:
        raise ValueError(f"{name} must be seconds, more than 0, not {seconds}")


def milliseconds_until(deadline: float) -> int:
    """Return how long the reply is waited for, as a request says it."""
    if deadline == math.inf:
        return 0
    return min(max(int((deadline - monotonic()) * 1000), 1), _MOST_WAIT_MS)


def unless_refused(event: Event) -> Event:
    """Return an event; raise the error of a refusal."""
    if event[0] is Kind.REFUSAL:
        raise event[1]
    return event


def failure_of(error: Exception, place: Place, *, was_sent: bool = True) -> LinepoolError:
    """Return what a call raises because of an error of its connection."""
    if isinstance(error, LinepoolError):
        return error
    name = place.endpoint.name
    if isinstance(error, TimeoutError):
        return CallTimeout(f"{name} did not reply in time", was_sent=was_sent)
    return ConnectionFailed(f"{name}: {_reason(error)}", was_sent=was_sent)


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError) and not error.args:
        return "no answer in time"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _close(place: Place) -> None:
    if place.connection is not None:
        place.connection.wire.close()
        place.connection = None


def _forget_all() -> None:
    for flow in list(_flows):
        flow.forget()


_flows: weakref.WeakSet[Flow] = weakref.WeakSet()
os.register_at_fork(after_in_child=_forget_all)
