"""What the connections of one worker share, and when the worker's second thread may use its tables.

Runs in workers.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping
from typing import Any

from attrs import field, frozen

from linepool.conversation import Service
from linepool.ipc.board import Slot
from linepool.pubsub.subscriptions import Audience
from linepool.settings import Settings
from linepool.worker.interrupts import Alarm
from linepool.worker.orders import Orders


class Rest:
    """Whether the worker's tables are at rest; only then may its second thread change them.

    The main thread says so at each request, and a lock would cost more than that. Each of the two first
    writes its own mark and then reads the other's, so at least one of them sees that it has to wait: the
    interpreter runs one thread at a time, each in the order of its program.

    Attributes:
        is_now: A handler runs; for the main thread to write.
        is_wanted: The second thread waits for it, or is at work.
    """

    def __init__(self) -> None:
        self.is_now = False
        self.is_wanted = False
        self._lock = threading.Lock()

    def wait(self) -> None:
        """Wait, in the main thread, until the second one has done its work."""
        with self._lock:
            pass

    @contextlib.contextmanager
    def used(self) -> Iterator[bool]:
        """Use it, in the second thread, if it gives True; the main thread waits meanwhile."""
        with self._lock:
            self.is_wanted = True
            try:
                yield self.is_now
            finally:
                self.is_wanted = False


@frozen
class Station:
    """What a worker has that all its connections share.

    Attributes:
        limit_ns: The setting ``request_timeout``.
    """

    service: Service
    settings: Settings
    resources: Mapping[str, Any]
    slot: Slot
    orders: Orders
    alarm: Alarm
    audience: Audience
    rest: Rest
    limit_ns: int = field(init=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "limit_ns", int(self.settings.request_timeout * 1e9))
