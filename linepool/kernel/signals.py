"""Signals: noted in a pipe for the master's loop, blocked around a fork, sent at the parent's end."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from collections.abc import Iterable, Iterator
from types import FrameType

from linepool.kernel import features
from linepool.kernel.pipes import quick_pipe

log = logging.getLogger("linepool")

_OF_LINUX = (
    (signal.SIGPWR, signal.SIGSTKFLT, *range(signal.SIGRTMIN, signal.SIGRTMAX + 1))
    if features.MORE_SIGNALS
    else ()
)
_NEVER_IGNORED = (signal.SIGTERM, signal.SIGCHLD)
_FATAL = (
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGALRM,
    signal.SIGVTALRM,
    signal.SIGPROF,
    signal.SIGIO,
    signal.SIGXCPU,
    *_OF_LINUX,
)
"""Signals that end a process unless it handles them, and may be sent to it from outside."""


class SignalPipe:
    """The signals to the master, as bytes in a pipe that its loop reads.

    Their handler does nothing: the byte that the interpreter writes into the wake-up pipe is the
    message, so no code of linepool runs at a random moment.

    A signal that was ignored when the program started stays ignored, as nohup(1) and shells want it for
    programs in the background; except for TERM, which must always stop a server, and CHLD, which makes
    children vanish if it is ignored. A signal that would end the process and has no meaning here is noted
    too, unless the app has a handler for it.

    Args:
        signals: Those that have a meaning.
        unblock: Let them through now, if they were blocked.
    """

    def __init__(self, signals: Iterable[signal.Signals], *, unblock: bool = True) -> None:
        self._reader, self._writer = quick_pipe()
        self._meaningful = [
            number
            for number in signals
            if number in _NEVER_IGNORED or signal.getsignal(number) is not signal.SIG_IGN
        ]
        self._meaningless = [
            number
            for number in _FATAL
            if number not in self._meaningful and signal.getsignal(number) is signal.SIG_DFL
        ]
        self._before = {
            number: signal.signal(number, _noted)
            for number in (*self._meaningful, *self._meaningless)
        }
        self._wakeup_before = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        if unblock:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, self._before)

    def fileno(self) -> int:
        """Return a descriptor that is readable when a signal has arrived."""
        return self._reader

    def drain(self) -> list[signal.Signals]:
        """Return the signals with a meaning that have arrived, in their order; log the others."""
        noted = b""
        with contextlib.suppress(BlockingIOError):
            while chunk := os.read(self._reader, 512):
                noted += chunk
        for number in dict.fromkeys(noted):
            if number in self._meaningless:
                log.warning("signal without a meaning ignored signal=%s", signal_name(number))
        return [signal.Signals(number) for number in noted if number in self._meaningful]

    def send_again(self) -> None:
        """Send the signals to this process that have arrived and have not been looked at.

        Pre-condition: all are blocked. So they are pending, also for a program that takes this one's place.
        """
        for number in self.drain():
            os.kill(os.getpid(), number)

    def close(self) -> None:
        """Put everything back as it was."""
        signal.set_wakeup_fd(self._wakeup_before)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        os.close(self._reader)
        os.close(self._writer)

    def abandon(self) -> None:
        """Close the copies of a forked child, where signals without a meaning have their usual one."""
        signal.set_wakeup_fd(-1)
        for number in (*self._meaningless, signal.SIGCHLD, signal.SIGWINCH):
            signal.signal(number, signal.SIG_DFL)
        os.close(self._reader)
        os.close(self._writer)


def _noted(_number: int, _frame: FrameType | None) -> None:
    """Do nothing: the byte in the pipe is the message."""


@contextlib.contextmanager
def signals_blocked() -> Iterator[set[int]]:
    """Block all signals; yield those that were blocked before.

    Around a fork: until the child has its own handlers, a signal meant for it would be noted in the
    master's pipe, which it shares.
    """
    before = signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
    try:
        yield before
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def signal_at_parents_end(number: signal.Signals) -> None:
    """Have the kernel send a signal when the parent process ends, however it ends (prctl(2), Linux)."""
    if features.PRCTL:
        import ctypes  # noqa: PLC0415 - not needed to parse options

        ctypes.CDLL(None).prctl(1, number, 0, 0, 0)  # PR_SET_PDEATHSIG


def adopt_orphans(*, adopt: bool = True) -> None:
    """Make this process the parent of all descendants whose parent ends (prctl(2), Linux), or no longer."""
    if features.PRCTL:
        import ctypes  # noqa: PLC0415 - not needed to parse options

        ctypes.CDLL(None).prctl(36, adopt, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER


def signal_name(number: int) -> str:
    """Return ``SIGKILL`` and the like; the number, for a signal that has no name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)
