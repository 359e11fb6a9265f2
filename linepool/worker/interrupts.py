"""The two signals by which the master reaches a worker in the middle of a request.

Runs in workers. USR1 raises RequestTimeout in the handler; its handler and that of QUIT (see ``orders``) are
the only ones that do more than leave a note. USR2 makes faulthandler write the stacks of all
threads, from C, so it works in code that never returns to Python. So do the signals that end a worker
because of a fault in C code, before they end it.
"""

from __future__ import annotations

import faulthandler
import signal
from types import FrameType

from linepool import core, forked
from linepool.conversation import Conversation
from linepool.errors import RequestTimeout
from linepool.ipc.board import WorkerView

RAISE = signal.SIGUSR1
DUMP = signal.SIGUSR2


class Interrupts(core.InterruptFields):
    """The handlers of these signals.

    Args:
        board: Says which request the master means.
        dump: The descriptor of the file for the stacks, also for that of a crash.

    Attributes:
        conversation: The one whose handler may be running; None: none is.
        armed: The compiled core runs a handler, in which RequestTimeout may be raised now.
    """

    def __init__(self, board: WorkerView, dump: int) -> None:
        self.conversation: Conversation | None = None
        self._board = board
        signal.signal(RAISE, self._on_raise)
        faulthandler.unregister(
            DUMP
        )  # else it would believe that its handler is installed, if the app has
        faulthandler.register(DUMP, file=dump, all_threads=True, chain=False)
        self._dump = dump

    def report_crashes(self) -> bool:
        """Have the stacks written too when a fault in C code ends the process.

        Returns whether something had that done before, somewhere else.
        """
        was_enabled = faulthandler.is_enabled()
        faulthandler.enable(file=self._dump, all_threads=True)
        return was_enabled

    def _on_raise(self, number: int, _frame: FrameType | None) -> None:
        """Raise RequestTimeout, if the request that the master means is still with its handler."""
        if forked.is_forking:
            forked.send_again(number)
            return
        limit_ns = self._board.overdue_limit_ns
        if limit_ns is None:
            return
        timeout = overdue(limit_ns)
        if self.armed:
            self.armed = False
            raise timeout
        conversation = self.conversation
        if conversation is None:
            return
        if not conversation.armed:
            conversation.overdue = timeout  # a stream whose last part is being sent
            return
        conversation.armed = False
        raise timeout


def overdue(limit_ns: int) -> RequestTimeout:
    """Return the exception for a request that took longer than its limit."""
    return RequestTimeout(f"the request took longer than {limit_ns / 1e9:g} s")
