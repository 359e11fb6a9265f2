"""What the master wants of a worker, and what signals tell it.

Runs in workers. The order itself is a word on the board, so it cannot be missed; the channel only ends
a wait, and the signal TERM says the same as an order to retire. The handlers here leave a note and end
the wait, but for QUIT: it raises LeaveNow, because an immediate stop has to interrupt a handler.
"""

from __future__ import annotations

import os
import signal
from types import FrameType

from linepool import forked
from linepool.errors import LeaveNow
from linepool.ipc.board import Order, WorkerView
from linepool.kernel import pipes
from linepool.kernel.signals import signal_at_parents_end
from linepool.kernel.standard import with_high_number


class Orders:
    """The orders to this worker.

    Args:
        board: Where the order is published.
        master: The pid of the parent: the master, or what keeps the worker (``kernel.keeper``).
        life: A descriptor that is readable when the master has ended; -1: its pidfd.

    Attributes:
        master: A descriptor, readable when the master has ended.
        wakeup: A descriptor, readable when there is something new here.
        is_orphaned: The master has ended, or has given this worker up.
        must_leave: It is to leave whatever the order is.
    """

    def __init__(self, board: WorkerView, master: int, life: int = -1) -> None:
        self._board = board
        self._parent = master
        self.must_leave = False
        self.is_orphaned = False
        self.master = life if life >= 0 else _life_of(master)
        reader, writer = pipes.counter()
        self.wakeup = with_high_number(reader)
        self._waker = self.wakeup if writer == reader else with_high_number(writer)

    @property
    def order(self) -> int:
        """The master's order, one of ``Order``."""
        return self._board.order()

    def leaving(self) -> bool:
        """Whether the worker is to leave when it has finished what is in flight."""
        return self.must_leave or self._board.order() != Order.NONE

    def hanging_up(self) -> bool:
        """Whether it is to end connections between two requests."""
        return self.must_leave or self._board.order() not in (Order.NONE, Order.RECYCLE)

    def leave(self) -> None:
        """Have the worker leave without an order: it cannot serve any more, or no order can reach it."""
        self.must_leave = True

    def master_ended(self) -> None:
        """Note that the master has ended, or has given this worker up. May be called by: any thread."""
        self.must_leave = self.is_orphaned = True
        pipes.add(self._waker, 1)

    def check_master(self) -> None:
        """Note that the master has ended if it has, where no descriptor is watched for that."""
        if not self.is_orphaned and os.getppid() != self._parent:
            self.master_ended()

    def descriptors(self) -> list[int]:
        """Return its own descriptors."""
        return [self.master, self.wakeup, self._waker]

    def listen(self) -> None:
        """Install the handlers of the signals that are meant for a worker."""
        signal.signal(signal.SIGTERM, self._on_term)
        signal.signal(signal.SIGQUIT, _on_quit)
        for number in (signal.SIGINT, signal.SIGHUP):
            # Meant for the master. Not SIG_IGN: the programs that a handler starts inherit that, as they
            # should if it was so before.
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, _on_other)
        # A worker that reads from the terminal gets an error, not a stop.
        signal.signal(signal.SIGTTIN, signal.SIG_IGN)
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        # A stopped process continues by it, and notices the end of the master as the others do.
        signal_at_parents_end(signal.SIGCONT)
        self.check_master()

    def _on_term(self, _number: int, _frame: FrameType | None) -> None:
        self.must_leave = True
        pipes.add(self._waker, 1)


def _life_of(pid: int) -> int:
    """Return a descriptor that is readable when a process has ended."""
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        reader, writer = pipes.counter()
        pipes.add(writer, 1)
        return reader


def _on_quit(number: int, _frame: FrameType | None) -> None:
    if forked.is_forking:
        forked.send_again(number)
    else:
        raise LeaveNow


def _on_other(_number: int, _frame: FrameType | None) -> None:
    """Do nothing."""
