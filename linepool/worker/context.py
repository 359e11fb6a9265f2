"""What a worker's connections share. Runs in workers."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from attrs import field, frozen

from linepool.ipc.board import WorkerView
from linepool.pubsub.subscriptions import Subscriptions
from linepool.resources import Resources
from linepool.service import Service
from linepool.settings import Settings
from linepool.worker.brakes import Brakes
from linepool.worker.interrupts import Interrupts
from linepool.worker.observer import Observer
from linepool.worker.orders import Orders
from linepool.worker.safe_point import SafePoint

T = TypeVar("T")


@frozen
class WorkerContext:
    """What a worker has and all its connections share.

    Attributes:
        observer: Told of each request that is done; None: nothing listens.
        limit_ns: The setting ``request_timeout``, in ns.
        brakes: The commands that are refused at present.
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
    limit_ns: int = field(init=False)
    brakes: Brakes = field(init=False)

    @limit_ns.default
    def _limit_ns(self) -> int:
        return int(self.settings.request_timeout * 1e9)

    @brakes.default
    def _brakes(self) -> Brakes:
        return Brakes(self.service, self.board, self.settings.poison_pause)

    def run_hooks(self, call: Callable[[], T]) -> T:
        """Run hooks of the app's, at a safe point.

        They have a deadline too, though only its last step, the kill, applies to them.
        """
        self.board.begin_hook(time.monotonic_ns(), self.limit_ns)
        try:
            return self.safe_point.run(call)
        finally:
            self.board.drop()
