"""Files in memory that no process can change any more (memfd_create(2), F_ADD_SEALS in fcntl(2))."""

from __future__ import annotations

import os

from linepool.kernel.memory_file import FIXED, memory_file, seal, seals_of


def sealed_file(data: bytes) -> int:
    """Return the descriptor of a sealed file with these bytes; the caller owns it.

    Raises:
        OSError: The kernel has no memory for the file, or this process has no descriptor left.
    """
    number = memory_file("linepool-connection")
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(number, view) :]
        seal(number, FIXED)
    except OSError:
        os.close(number)
        raise
    return number


def sealed_size(number: int) -> int:
    """Return the length of a sealed file in bytes: nothing can change it, and no read of it waits.

    Raises:
        OSError, ValueError: The descriptor is of something else.
    """
    if seals_of(number, FIXED) != FIXED:
        raise ValueError
    return os.fstat(number).st_size
