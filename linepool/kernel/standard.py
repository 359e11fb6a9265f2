"""Descriptors 0 to 2, which the app's code may close: no connection gets one, nor what linepool opens.

Whatever has such a number is read or written by code that means the terminal or the log.
"""

from __future__ import annotations

import fcntl
import os

from linepool.kernel.sockets import is_open

LAST_STANDARD = 2


def fill_standard_descriptors() -> None:
    """Open /dev/null under the numbers that are free."""
    for number in range(LAST_STANDARD + 1):
        if not is_open(number):
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
            os.set_inheritable(number, True)


def moved_away(descriptor: int) -> int:
    """Return a copy of a descriptor that is not a standard one, and close the original.

    Raises:
        OSError: There are no descriptors left; the original is closed.
    """
    try:
        return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, LAST_STANDARD + 1)
    finally:
        os.close(descriptor)
        fill_standard_descriptors()
