"""The account of what the parker holds, from which it decides what it refuses. Runs in the parker."""

from __future__ import annotations

from linepool.ipc.board import ParkerView
from linepool.ipc.messages import ConnectionState

_SMALL = 4096  # bytes of an unfinished request that is held in any case


class Held:
    """The connections that are parked or wait for a worker, as far as they count.

    Attributes:
        size: Bytes of their states, altogether.
    """

    def __init__(self, board: ParkerView) -> None:
        self.size = 0
        self._board = board

    def add(self, state: ConnectionState) -> None:
        """Count one more."""
        self.size += len(state.data)
        self._board.count_origin(state.origin, 1)

    def remove(self, state: ConnectionState) -> None:
        """Count one less: a worker has it, or it has ended."""
        self.size -= len(state.data)
        self._board.count_origin(state.origin, -1)

    def has_room_for(self, state: ConnectionState, most: int) -> bool:
        """Whether all states with this one are no longer than ``most``, or this one is short."""
        return len(state.data) <= _SMALL or self.size + len(state.data) <= most
