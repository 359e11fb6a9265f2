"""A timer that a process may set for another one: a descriptor that both have (timerfd_create(2), Linux)."""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
import time

from linepool.kernel import features
from linepool.kernel.standard import with_high_number

_TIME = struct.Struct("@4l")  # interval and moment, each in seconds and nanoseconds


class Timer:
    """Readable once the time that was set last is over; nothing, where there are no such timers.

    Args:
        descriptor: Of a timer that another process has made; -1: make a new one.
    """

    def __init__(self, descriptor: int = -1) -> None:
        self._descriptor = descriptor
        if not features.TIMER:
            return
        self._libc = ctypes.CDLL(None)
        flags = os.O_NONBLOCK | os.O_CLOEXEC
        if descriptor < 0:
            descriptor = self._libc.timerfd_create(time.CLOCK_MONOTONIC, flags)
        if descriptor >= 0:  # else the kernel has none
            self._descriptor = with_high_number(descriptor)
            os.set_inheritable(self._descriptor, False)

    def fileno(self) -> int:
        """Return the descriptor; -1: the kernel has none."""
        return self._descriptor

    def set(self, seconds: float) -> None:
        """Have it end after some time; the time that was set before does not matter any more."""
        if self._descriptor < 0:
            return
        after = _TIME.pack(0, 0, int(seconds), int(seconds % 1 * 1e9) or 1)
        self._libc.timerfd_settime(self._descriptor, 0, after, None)

    def clear(self) -> None:
        """Note that it has ended."""
        with contextlib.suppress(OSError):
            os.read(self._descriptor, 8)

    def __del__(self) -> None:
        if self._descriptor >= 0:
            with contextlib.suppress(OSError):  # the app has closed it
                os.close(self._descriptor)
