"""What the master wants of a worker: the worker's ears.

Runs in workers. The order itself is a word on the board, so it cannot be missed; the channel is only
the bell that ends a wait, and the signal TERM says the same as an order to retire.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Callable
from types import FrameType

from linepool.errors import LeaveNow
from linepool.ipc.board import ORDER, Order, Slot


class Orders:
    """The orders to this worker.

    Args:
        slot: The worker's slot, where the order stands.
        channel: The worker's end of its channel; at its end the master is gone.
        master: The master's pid.
        let_go: Called once when the master is gone, from a signal handler: closes the listeners, so
            that their addresses are free for the next master even while a request is in hand.

    Attributes:
        wake: Called, from a signal handler, to end the worker's sleep.
    """

    def __init__(
        self, slot: Slot, channel: socket.socket, master: int, let_go: Callable[[], None]
    ) -> None:
        self._words = slot.words
        self._channel = channel
        self._master = master
        self._let_go = let_go
        # Ends a wait, which a signal alone does not.
        self.wake: Callable[[], None] = lambda: channel.shutdown(socket.SHUT_RD)
        self._told = False
        self._is_orphaned = False

    def fileno(self) -> int:
        """Readable when an order came, or when the master is gone."""
        return self._channel.fileno()

    def leaving(self) -> bool:
        """Whether the worker shall leave when it is done with what it has in hand."""
        return self._told or bool(self._words[ORDER])

    def hanging_up(self) -> bool:
        """Whether it shall end the connection in hand between two requests."""
        return self._told or int(self._words[ORDER]) in (Order.RETIRE, Order.STOP)

    @property
    def is_orphaned(self) -> bool:
        """Whether the master is gone."""
        return self._is_orphaned

    def resign(self) -> None:
        """Leave, by the worker's own wish."""
        self._told = True

    def channel_ended(self) -> None:
        """Note that nothing more comes through the channel."""
        self._told = True
        self.check_master()

    def take_queued(self) -> bool:
        """Whether it shall first take the clients that the kernel has queued."""
        return int(self._words[ORDER]) == Order.STOP

    def heed(self) -> None:
        """Hear what the channel says, without waiting."""
        with contextlib.suppress(BlockingIOError):
            while self._channel.recv(64, socket.MSG_DONTWAIT):
                pass
            self._orphaned()

    def check_master(self) -> None:
        """Notice that the master is gone, where no signal and no channel tells."""
        if os.getppid() != self._master:
            self._orphaned()

    def listen(self) -> None:
        """Take the signals that are meant for a worker."""
        signal.signal(signal.SIGTERM, self._on_term)
        signal.signal(signal.SIGQUIT, _on_quit)
        for number in (signal.SIGINT, signal.SIGHUP):
            # Meant for the master. Not SIG_IGN: the programs that a handler starts inherit that.
            signal.signal(number, _on_other)
        # A worker that reads from the terminal gets an error, not a stop.
        signal.signal(signal.SIGTTIN, signal.SIG_IGN)
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        ask_for_term_at_parents_end()
        self.check_master()

    def _on_term(self, _number: int, _frame: FrameType | None) -> None:
        self._told = True
        self.wake()
        self.check_master()

    def _orphaned(self) -> None:
        self._told = self._is_orphaned = True
        self._let_go()


def _on_quit(_number: int, _frame: FrameType | None) -> None:
    raise LeaveNow


def _on_other(_number: int, _frame: FrameType | None) -> None:
    """Do nothing."""


def ask_for_term_at_parents_end() -> None:
    """Have the kernel send TERM when the parent process ends, however it ends (prctl(2), Linux)."""
    import ctypes  # noqa: PLC0415 - not for who only parses options

    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGTERM, 0, 0, 0)  # PR_SET_PDEATHSIG
