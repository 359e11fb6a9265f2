"""The master's inbox: signals become bytes in a pipe, and the loop reads them when it is ready.

Used by the master alone. A handler here does nothing: the byte that the interpreter writes into
the wake-up pipe is the message, so nothing of ours runs at a random moment.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable, Iterator
from types import FrameType


class Inbox:
    """Signals waiting to be dealt with."""

    def __init__(self, signals: Iterable[signal.Signals]) -> None:
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._before = {number: signal.signal(number, _noted) for number in signals}
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, it would make children vanish
        signal.pthread_sigmask(signal.SIG_UNBLOCK, self._before)
        self._wakeup_before = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)

    def fileno(self) -> int:
        """Readable when a signal waits."""
        return self._reader

    def drain(self) -> list[signal.Signals]:
        """Return the signals that came, in order."""
        noted = b""
        with contextlib.suppress(BlockingIOError):
            while chunk := os.read(self._reader, 512):
                noted += chunk
        return [signal.Signals(number) for number in noted]

    def close(self) -> None:
        """Put everything back as it was."""
        signal.set_wakeup_fd(self._wakeup_before)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        os.close(self._reader)
        os.close(self._writer)

    def abandon(self) -> None:
        """Close a new worker's copies."""
        signal.set_wakeup_fd(-1)
        os.close(self._reader)
        os.close(self._writer)


def _noted(_number: int, _frame: FrameType | None) -> None:
    """Do nothing: the byte in the pipe is the message."""


@contextlib.contextmanager
def signals_blocked() -> Iterator[None]:
    """Hold all signals back.

    Around a fork: until the child has its own handlers, a signal meant for it would be noted in the
    master's inbox, whose pipe it shares.
    """
    before = signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
