"""What a worker's connections share. Runs in workers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import field, frozen

from linepool.conversation import Service
from linepool.ipc.board import WorkerView
from linepool.pubsub.subscriptions import Subscriptions
from linepool.settings import Settings
from linepool.worker.interrupts import Interrupts
from linepool.worker.orders import Orders
from linepool.worker.safe_point import SafePoint


@frozen
class WorkerContext:
    """What a worker has and all its connections share.

    Attributes:
        limit_ns: The setting ``request_timeout``, in ns.
    """

    service: Service
    settings: Settings
    resources: Mapping[str, Any]
    board: WorkerView
    orders: Orders
    interrupts: Interrupts
    subscriptions: Subscriptions
    safe_point: SafePoint
    limit_ns: int = field(init=False)

    @limit_ns.default
    def _limit_ns(self) -> int:
        return int(self.settings.request_timeout * 1e9)
