"""The figures of requests that were lost with their worker. Runs in the master."""

from __future__ import annotations

import time

from attrs import frozen

from linepool.failures import DIED, KILLED
from linepool.ipc.board import SlotSnapshot
from linepool.ipc.figures import UNKNOWN, Figures, Row
from linepool.master.worker_handle import WorkerHandle


@frozen
class _Client:
    peer: str


class LostRequests:
    """Counts them in the master's row.

    Args:
        figures: Those of the server.
    """

    def __init__(self, figures: Figures) -> None:
        self._figures = figures

    def count(self, last: SlotSnapshot, worker: WorkerHandle) -> None:
        """Count the request that a dead worker was serving, if it was serving one.

        Args:
            last: What its slot says.
            worker: The worker.
        """
        if not last.started_ns:
            return
        command = worker.generation.facts.numbered(last.command)
        (block,) = self._figures.blocks([command.name]) if command else (UNKNOWN,)
        result = KILLED if worker.is_killed else DIED
        client = _Client(worker.client)
        Row(self._figures.row(0)).lost(block, last.started_ns, time.monotonic_ns(), result, client)
