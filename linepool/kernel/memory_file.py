"""Files in memory (memfd_create(2)), whose size or content can be sealed (F_ADD_SEALS in fcntl(2)).

Without that system call they are deleted files in the directory for temporary files, and nothing is sealed.
"""

from __future__ import annotations

import fcntl
import os
import stat

from linepool.kernel import features

_FIXED_SIZE = ("SHRINK", "GROW", "SEAL")
_FIXED = (*_FIXED_SIZE, "WRITE")


def _seals(names: tuple[str, ...]) -> int:
    return sum(getattr(fcntl, f"F_SEAL_{name}") for name in names) if features.SEALS else 0


FIXED_SIZE = _seals(_FIXED_SIZE)
"""The seals of a file whose size does not change any more."""

FIXED = _seals(_FIXED)
"""The seals of a file that does not change any more."""


def memory_file(name: str) -> int:
    """Return the descriptor of a new, empty file that can be sealed; no program inherits it.

    Args:
        name: To be seen in /proc/PID/maps.

    Raises:
        OSError: The kernel has no memory or no descriptor for it.
    """
    if features.SEALS:
        return os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    import tempfile  # noqa: PLC0415 - heavy, and needed here only

    descriptor, path = tempfile.mkstemp(prefix=f"{name}-")
    os.unlink(path)
    return descriptor


def seal(descriptor: int, seals: int) -> None:
    """Seal a file: ``FIXED_SIZE`` or ``FIXED``."""
    if features.SEALS:
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)


def seals_of(descriptor: int, wanted: int) -> int:
    """Return the seals of a file; where there are none, those that are wanted, if it is a file.

    Raises:
        OSError: The descriptor is of something that cannot have seals.
    """
    if features.SEALS:
        found: int = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS)
        return found
    return wanted if stat.S_ISREG(os.fstat(descriptor).st_mode) else -1
