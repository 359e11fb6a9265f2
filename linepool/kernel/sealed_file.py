"""Files in memory that no process can change any more (memfd_create(2), F_ADD_SEALS in fcntl(2))."""

from __future__ import annotations

import fcntl
import os

_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


def sealed_file(data: bytes) -> int:
    """Return the descriptor of a sealed file with these bytes; the caller owns it.

    Raises:
        OSError: The kernel has no memory for the file, or this process has no descriptor left.
    """
    number = os.memfd_create("linepool-connection", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(number, view) :]
        fcntl.fcntl(number, fcntl.F_ADD_SEALS, _SEALS)
    except OSError:
        os.close(number)
        raise
    return number


def sealed_size(number: int) -> int:
    """Return the length of a sealed file in bytes: nothing can change it, and no read of it waits.

    Raises:
        OSError, ValueError: The descriptor is of something else.
    """
    if fcntl.fcntl(number, fcntl.F_GET_SEALS) != _SEALS:
        raise ValueError
    return os.fstat(number).st_size
