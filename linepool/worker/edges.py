"""How a worker tells the master its state: at each edge on the board, and through the status pipe if need be.

Runs in workers. The master says on the board until when it has nothing to decide (``EDGES_FROM_NS``), and
below which number of idle workers it has (``IDLE_FLOOR``). Other edges are told by the board alone, where
the master reads them later. So at an edge at ``now_ns``, to write the words STATE and SINCE_NS of the
worker's slot is all there is to do while ``now_ns < EDGES_FROM_NS and IDLE_FLOOR == 0``. They are written
before the master's words are read: else a worker could withhold an edge that the master no longer looks for.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from linepool.ipc.board import WorkerView
from linepool.ipc.status_pipe import StatusPipe
from linepool.pool.status import State, packed


class Edges:
    """The states of one worker, as the master learns them.

    Args:
        board: Where each state is published.
        pipe: The worker's status pipe.
        slot: The worker's slot.
        generation: Counts the loads of the app's code.
        master_ended: Called if the master has ended, or has given this worker up: what is in flight is to be
            finished all the same.
    """

    def __init__(
        self,
        board: WorkerView,
        pipe: StatusPipe,
        slot: int,
        generation: int,
        master_ended: Callable[[], object] = bool,
    ) -> None:
        self._board = board
        self._pipe = pipe
        self._slot = slot
        self._generation = generation
        self._master_ended = master_ended
        self._pid = os.getpid()

    def tell(self, state: State) -> None:
        """Tell the master a state at once."""
        now_ns = time.monotonic_ns()
        self._write(state, now_ns, *self._board.changed(state, now_ns))

    def busy(self, now_ns: int) -> None:
        """Note that the worker has work now; it was idle before."""
        self._pass(State.TAKEN, now_ns)

    def idle(self, now_ns: int) -> None:
        """Note that the worker waits for work now; it had some before."""
        self._pass(State.IDLE, now_ns)

    def _pass(self, state: State, now_ns: int) -> None:
        counts = self._board.changed(state, now_ns)
        if self._board.must_tell(now_ns):
            self._write(state, now_ns, *counts)

    def _write(self, state: State, now_ns: int, connections: int, requests: int) -> None:
        record = packed(
            self._slot, state, self._pid, self._generation, connections, requests, now_ns
        )
        try:
            self._pipe.report(record)
        except BrokenPipeError:
            self._master_ended()
