"""What a worker's connections share. Runs in workers."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeVar

from attrs import field, frozen

from linepool.conversation import Conversation
from linepool.ipc.board import WorkerView
from linepool.ipc.gate import Gate
from linepool.pubsub.subscriptions import Subscriptions
from linepool.resources import Resources
from linepool.service import Service
from linepool.settings import Settings
from linepool.worker.brakes import Brakes
from linepool.worker.figures import RequestFigures
from linepool.worker.interrupts import Interrupts
from linepool.worker.observer import Observer
from linepool.worker.orders import Orders
from linepool.worker.rate_limit import RateLimit, limit_of, limited
from linepool.worker.safe_point import SafePoint
from linepool.worker.waiting import WaitingRequests

if TYPE_CHECKING:
    import ssl  # which takes 20 ms and some memory, and only TLS needs it

T = TypeVar("T")


@frozen
class WorkerContext:
    """What a worker has and the connections of a listener share: the app that they talk to, and its settings.

    The context of the worker itself serves the connections of all listeners without one of their own.

    Attributes:
        tls: With which handshakes begin; None: connections are not encrypted.
        figures: Count each request.
        by_listener: The contexts of listeners that have one of their own, by their names.
        observer: Told of each request that is done; None: nothing listens.
        waits: The requests that wait; None: they cannot.
        limit_ns: The setting ``request_timeout``, in ns.
        may_age: Whether connections end when they are old.
        brakes: The commands that are refused at present.
        gate: Which clients may connect.
        rate_limit: The outermost middleware of the service, if the settings limit the rate of requests.
    """

    service: Service
    settings: Settings
    resources: Resources
    board: WorkerView
    orders: Orders
    interrupts: Interrupts
    subscriptions: Subscriptions
    safe_point: SafePoint
    observer: Observer | None = None
    tls: ssl.SSLContext | None = None
    figures: RequestFigures = field(kw_only=True)
    waits: WaitingRequests | None = field(kw_only=True, default=None)
    by_listener: Mapping[str, WorkerContext] = field(factory=dict)
    limit_ns: int = field(init=False)
    may_age: bool = field(init=False)
    brakes: Brakes = field()
    gate: Gate = field(init=False)
    rate_limit: RateLimit | None = field(init=False, default=None)

    def __attrs_post_init__(self) -> None:
        """Have the app's requests counted, also against their rate if the settings limit that."""
        self.figures.is_alone = self.observer is None
        service = limited(self.service, self.settings, self.board)
        object.__setattr__(self, "service", service)
        object.__setattr__(self, "rate_limit", limit_of(service))

    @figures.default
    def _figures(self) -> RequestFigures:
        return RequestFigures.of(None, 0, [self.service])

    @limit_ns.default
    def _limit_ns(self) -> int:
        return int(self.settings.request_timeout * 1e9)

    @may_age.default
    def _may_age(self) -> bool:
        return self.settings.connection_max_age > 0

    @brakes.default
    def _brakes(self) -> Brakes:
        return Brakes(self.service.entries, self.board, self.settings.poison_pause)

    @gate.default
    def _gate(self) -> Gate:
        return Gate(self.settings, self.board.bans)

    @property
    def has_tls(self) -> bool:
        """Whether a connection may be encrypted."""
        return any(one.tls is not None for one in (self, *self.by_listener.values()))

    def of(self, listener: str) -> WorkerContext:
        """Return what holds for the connections of a listener, given its name.

        Raises:
            LookupError: The others have contexts of their own, and this one is not among them.
        """
        if not self.by_listener:
            return self
        if listener not in self.by_listener:
            raise LookupError(f"nothing is served any more at {listener}")
        return self.by_listener[listener]

    @property
    def only(self) -> WorkerContext | None:
        """The context of a connection of which the listener is not known; None: there are several."""
        return None if self.by_listener else self

    def serves(self, listener: str) -> bool:
        """Whether anything is served at a listener."""
        return not self.by_listener or listener in self.by_listener

    def watch(self, conversation: Conversation) -> None:
        """Have the requests of a conversation counted and observed."""
        self.figures.watch(conversation)
        if self.observer is not None:
            self.observer.watch(conversation)

    def run_hooks(self, call: Callable[[], T]) -> T:
        """Run hooks of the app's, at a safe point.

        They have a deadline too, though only its last step, the kill, applies to them.
        """
        self.board.begin_hook(time.monotonic_ns(), self.limit_ns)
        try:
            return self.safe_point.run(call)
        finally:
            self.board.drop()
