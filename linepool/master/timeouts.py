"""Requests that have ended with RequestTimeout. Runs in the master.

The master has had the exception raised; it learns whether that has ended the request from a note that the
worker leaves in its row of the figures. It looks there until the request is over, and at no other time.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from typing import Any

from attrs import frozen

from linepool.ipc.board import MasterView, SlotSnapshot
from linepool.ipc.figures import Figures, noted
from linepool.master.incidents import TIMEOUT, Incidents
from linepool.master.stack_text import Call, without_servers_calls
from linepool.master.worker_handle import WorkerHandle


@frozen
class _Raised:
    """A request in which the exception was raised.

    Attributes:
        notes: How many notes the worker's row had before.
    """

    worker: WorkerHandle
    snapshot: SlotSnapshot
    notes: int


class Timeouts:
    """Notes these requests as incidents.

    Args:
        board: Says which requests are in flight.
        figures: Have the notes.
        incidents: Where these requests are noted.
    """

    def __init__(self, board: MasterView, figures: Figures, incidents: Incidents) -> None:
        self._board = board
        self._figures = figures
        self._incidents = incidents
        self._raised: dict[int, _Raised] = {}  # by slot

    @property
    def is_waiting(self) -> bool:
        """Whether to look again soon."""
        return bool(self._raised)

    def raised(self, slot: int, worker: WorkerHandle, snapshot: SlotSnapshot) -> None:
        """Note that the exception is raised in a request.

        Pre-condition: the worker has not been sent the signal yet.
        """
        with contextlib.suppress(OSError):  # there is no memory to map the row
            notes, _ = noted(self._figures.row(slot + 1))
            self._raised[slot] = _Raised(worker, snapshot, notes)

    def look(self, workers: Mapping[int, WorkerHandle]) -> None:
        """Look how the requests have ended.

        Args:
            workers: Those that are alive, by slot.
        """
        for slot, one in list(self._raised.items()):
            board_slot = self._board.slot(slot)
            is_over = (
                workers.get(slot) is not one.worker
                or board_slot.number != one.snapshot.number
                or not board_slot.started_ns
            )
            # After that: a worker leaves its note before the request is over.
            notes, data = noted(self._figures.row(slot + 1))
            if notes != one.notes and data:
                self._note(slot, one, data)
            elif not is_over:
                continue
            del self._raised[slot]

    def _note(self, slot: int, one: _Raised, data: bytes) -> None:
        facts = _facts(data)
        if facts is None:
            return
        generation = one.worker.generation
        logged = generation.logged(one.snapshot.command, one.snapshot.line)
        self._incidents.note(
            TIMEOUT,
            without_servers_calls(facts["stack"]),
            command=logged.name,
            client=facts["client"],
            pid=one.worker.process.pid,
            slot=slot,
            generation=generation.number,
            ran_s=facts["ran_s"],
            limit_s=one.snapshot.limit_ns / 1e9,
            id=facts["id"],
        )


def _facts(data: bytes) -> dict[str, Any] | None:
    """Return what a note says; None: a handler has written something else there."""
    try:
        facts = json.loads(data)
        stack: list[Call] = [
            (str(file), int(line), str(name)) for file, line, name in facts["stack"]
        ]
        return {
            "client": str(facts["client"]),
            "id": str(facts["id"]),
            "ran_s": float(facts["ran_s"]),
            "stack": stack,
        }
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
