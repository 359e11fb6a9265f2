"""What a worker tells the master of a request that has ended with RequestTimeout. Runs in workers.

It leaves a note in its row of the figures. The master has had the exception raised, so it looks there.
"""

from __future__ import annotations

import json
import time
from types import FrameType, TracebackType

from linepool import failures
from linepool.errors import RequestTimeout
from linepool.handlers.compile import CALL_FILE
from linepool.ipc.board import WorkerView
from linepool.ipc.figures import MOST_NOTED, Row
from linepool.protocols.base import Request
from linepool.worker import interrupts

_MOST_TEXT = 200  # characters of a name that is not the server's own


class TimeoutNotes:
    """Leaves the notes of one worker.

    Args:
        board: Says how long the request has run.
        row: Where the notes are left.
    """

    def __init__(self, board: WorkerView, row: Row) -> None:
        self._board = board
        self._row = row

    def serve(self) -> None:
        """Have this process leave notes."""
        failures.timed_out = self._note

    def _note(self, error: RequestTimeout, client: str, request: Request) -> None:
        ran_ns = self._board.running_ns(time.monotonic_ns())
        facts = {
            "client": client[:_MOST_TEXT],
            "id": request.id[:_MOST_TEXT],
            "ran_s": round(ran_ns / 1e9, 3),
        }
        self._row.note(_packed(facts, _calls(error.__traceback__)))


def _packed(facts: dict[str, object], calls: list[tuple[str, int, str]]) -> bytes:
    """Return a note with as much of a stack as there is room for."""
    while len(data := json.dumps({**facts, "stack": calls}).encode()) > MOST_NOTED:
        if not calls:
            return b"{}"
        calls = calls[: len(calls) * 3 // 4]
    return data


def _calls(trace: TracebackType | None) -> list[tuple[str, int, str]]:
    """Return where a handler was: file, line and function of its calls, the most recent one first."""
    calls: list[tuple[FrameType, int]] = []
    while trace is not None:
        calls.append((trace.tb_frame, trace.tb_lineno))
        trace = trace.tb_next
    found: list[tuple[str, int, str]] = []
    for frame, line in reversed(calls):
        code = frame.f_code
        if code.co_filename.startswith(CALL_FILE):
            break
        if (
            code.co_filename != interrupts.__file__
        ):  # the handler of the signal, which has raised it
            name = code.co_filename[-_MOST_TEXT:]
            found.append((name, line or 0, code.co_name[:_MOST_TEXT]))
    return found
