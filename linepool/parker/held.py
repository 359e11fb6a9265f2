"""The account of what the parker holds, from which it decides what it refuses. Runs in the parker."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import frozen

from linepool.ipc.board import ParkerView
from linepool.ipc.channel import ConnectionState

_SMALL = 4096  # bytes of an unfinished request that is held in any case


@frozen
class AppFacts:
    """What the parker must know of the app.

    Attributes:
        refusals: What a client is sent that is refused, by the reason.
        greets: A new client is greeted before it has sent anything.
        has_disconnect_hook: There are hooks for the end of a connection, which a worker runs.
    """

    refusals: Mapping[str, bytes]
    greets: bool
    has_disconnect_hook: bool


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
