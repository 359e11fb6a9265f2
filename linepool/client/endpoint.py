"""One address of a client: its connections, and when it was last refused. No I/O."""

from __future__ import annotations

import random
import threading
import weakref
from collections import deque
from collections.abc import Sequence, Set
from time import monotonic
from typing import TYPE_CHECKING
from typing import Protocol as Interface

from linepool.address import FORMS, LOCAL, parse_address, unix_address
from linepool.client.core import Core

if TYPE_CHECKING:
    import ssl

_FIRST_AVOIDED_S = 0.1
_MOST_AVOIDED_S = 10.0


class Wire(Interface):
    """The socket of a connection."""

    async def send(self, data: bytes, deadline: float) -> None:
        """Send bytes; raises OSError if not all of them were taken, so that the last request is not run."""

    async def recv(self, deadline: float) -> bytes:
        """Return the next bytes, b"" at the end; raises OSError, which is TimeoutError at the deadline."""

    def is_quiet(self) -> bool:
        """Whether the stream has not ended and nothing waits to be read."""

    def close(self) -> None:
        """Close the socket."""

    def forget(self) -> None:
        """Close this process's copy of the socket, after a fork; another process uses it."""


class Waiter(Interface):
    """Waits for a connection of an endpoint that has as many as it may have."""

    async def wait(self, deadline: float) -> bool:
        """Wait for ``set``; False: it was not called by the deadline."""

    def set(self) -> None:
        """End the wait. May be called by: any thread of a blocking client."""


class Connection:
    """One connection.

    Attributes:
        wire: Its socket.
        core: Its bytes.
    """

    __slots__ = ("core", "wire")

    def __init__(self, wire: Wire, core: Core) -> None:
        self.wire = wire
        self.core = core


class Place:
    """A place for one connection to an endpoint, which is held during a call.

    One that is lost is free again: an exception out of a signal handler may come at any moment.

    Attributes:
        endpoint: To which.
        connection: The connection, if it is open.
        known: What the endpoint knows it by.
    """

    __slots__ = ("__weakref__", "connection", "endpoint", "known")

    def __init__(self, endpoint: Endpoint, places: Places) -> None:
        self.endpoint = endpoint
        self.connection: Connection | None = None
        self.known = places
        places.add(weakref.ref(self, places.discard))


Places = set["weakref.ref[Place]"]
"""Of one endpoint, in one process and event loop; without those that nothing holds any more."""


class Endpoint:
    """An address, and a limited number of connections to it; the one used last is the first to be used again.

    Its methods may be called by: any thread.

    Attributes:
        name: The address, as it was given.
        target: The path of a unix socket, or host and port.
        uses_tls: Whether the address says that its connections have TLS.
        context: How they have it; None: they do not. The client sets it.
    """

    def __init__(self, name: str, most: int) -> None:
        bare = name.removeprefix(_TLS)
        try:
            address = parse_address(bare)
        except ValueError as error:
            text = str(error).replace(FORMS, _FORMS)
            raise ValueError(f"address must be {text}, not {name!r}") from None
        if address.name or address.descriptor >= 0:
            raise ValueError(f"address must be {_FORMS}, not {name!r}, which is for servers only")
        host = LOCAL if bare.startswith(":") else address.host
        self.name = name
        self.uses_tls = bare is not name
        self.context: ssl.SSLContext | None = None
        self.target = unix_address(address.path) if address.path else (host, address.port)
        self._most = most
        self._failures = 0
        self._avoided_until = 0.0
        self._places: Places = set()
        self.forget()

    def forget(self) -> list[Connection]:
        """Start without connections; return those that there were.

        They belong to another process or event loop. A thread that held the lock when the process was
        forked does not exist in this one.
        """
        places, self._places = self._places, set()
        self._lock = threading.Lock()
        self._idle: list[Place] = []
        self._waiting: deque[tuple[Waiter, list[Place]]] = deque()
        held = [place for one in places if (place := one()) is not None]
        return [place.connection for place in held if place.connection is not None]

    @property
    def load(self) -> int:
        """How many calls are in progress or wait for a connection."""
        return len(self._places) - len(self._idle) + len(self._waiting)

    def is_avoided(self) -> bool:
        """Whether it was refused a short time ago."""
        return monotonic() < self._avoided_until

    def refused(self) -> None:
        """Note that it could not be connected; it is avoided for a time that grows.

        Calls that wait for one of its connections wait no longer: they may go to another endpoint.
        """
        with self._lock:
            while self._waiting:
                self._waiting[0][0].set()
                self._waiting.popleft()
        self._avoided_until = monotonic() + min(
            _FIRST_AVOIDED_S * 2**self._failures, _MOST_AVOIDED_S
        )
        self._failures = min(self._failures + 1, 10)

    def accepted(self) -> None:
        """Note that it has been connected."""
        self._failures = 0
        self._avoided_until = 0.0

    def take_last(self) -> Place | None:
        """Return the place of the idle connection that was used last; None: there is none."""
        with self._lock:
            return self._idle.pop() if self._idle else None

    def take(self) -> Place | None:
        """Return a place that is free now; None: there is none."""
        with self._lock:
            return self._take()

    async def wait(self, waiter: Waiter, deadline: float) -> Place | None:
        """Return the next place that is free; None: none was by the deadline, or the endpoint is refused."""
        given: list[Place] = []
        entry = (waiter, given)
        with self._lock:
            if (place := self._take()) is not None:
                return place
            self._waiting.append(entry)
        try:
            await waiter.wait(deadline)
        except BaseException:
            self._leave(entry)
            if given:
                self.put(given.pop())
            raise
        self._leave(entry)
        return given.pop() if given else None

    def put(self, place: Place) -> None:
        """Give a place back, with its connection or without."""
        with self._lock:
            if place.known is not self._places:
                return
            if self._waiting:
                waiter, given = self._waiting[0]
                given.append(place)
                waiter.set()
                self._waiting.popleft()
            elif place.connection is None:
                self._places.discard(weakref.ref(place))
            else:
                self._idle.append(place)

    def take_idle(self) -> list[Place]:
        """Return the places of all idle connections, which the caller closes and puts back."""
        with self._lock:
            places, self._idle = self._idle, []
        return places

    def _take(self) -> Place | None:
        if self._idle:
            return self._idle.pop()
        if len(self._places) >= self._most:
            return None
        return Place(self, self._places)

    def _leave(self, entry: tuple[Waiter, list[Place]]) -> None:
        with self._lock:
            if entry in self._waiting:
                self._waiting.remove(entry)


def choose(endpoints: Sequence[Endpoint], refused: Set[Endpoint]) -> Endpoint:
    """Return the less loaded of two endpoints, drawn from those that were not refused.

    Args:
        endpoints: One at least.
        refused: Those that have refused in the same call; they come last.
    """
    if len(endpoints) == 1:
        return endpoints[0]
    left = [one for one in endpoints if one not in refused] or endpoints
    drawn = [one for one in left if not one.is_avoided()] or left
    if len(drawn) > 1:
        drawn = random.sample(drawn, 2)
    return min(drawn, key=lambda one: one.load)


_TLS = "tls://"
_FORMS = "HOST:PORT, PORT, [::1]:PORT, tls://HOST:PORT, unix:/PATH or unix:@NAME"
