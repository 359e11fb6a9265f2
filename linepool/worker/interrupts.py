"""The alarm: how a worker hears that its request is overdue, and shows where it is.

Runs in workers. Two signals of the master end here: USR1 raises RequestTimeout in the handler, one
of the two places where code of ours runs at a random moment; USR2 makes faulthandler write the
stacks of all threads, from C, so it works in code that never comes back to Python.
"""

from __future__ import annotations

import faulthandler
import signal
from types import FrameType

from linepool.conversation import Conversation
from linepool.errors import RequestTimeout
from linepool.ipc.board import LIMIT_NS, OVERDUE, SERIAL, Slot

RAISE = signal.SIGUSR1
DUMP = signal.SIGUSR2


class Alarm:
    """The alarm of one worker.

    Attributes:
        conversation: The one whose handler may be running; None: none is.
    """

    def __init__(self, slot: Slot, dump: int) -> None:
        self.conversation: Conversation | None = None
        self._words = slot.words
        signal.signal(RAISE, self._strike)
        faulthandler.register(DUMP, file=dump, all_threads=True, chain=False)

    def _strike(self, _number: int, _frame: FrameType | None) -> None:
        """Raise RequestTimeout, if the request that the master meant is still with its handler."""
        words = self._words
        conversation = self.conversation
        if conversation is None or words[OVERDUE] != words[SERIAL]:
            return
        timeout = RequestTimeout(f"the request took longer than {words[LIMIT_NS] / 1e9:g} s")
        if not conversation.armed:
            conversation.overdue = timeout  # a stream whose last part is being sent
            return
        conversation.armed = False
        raise timeout
