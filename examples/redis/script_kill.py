"""SCRIPT KILL: ending the scripts that run for long, in any worker.

A script that has run for a while locks a file of all workers, shared, until it ends; so the server knows
whether there is any, also if its worker is killed. A counter in the file says how often there was a
SCRIPT KILL: a script ends when that changes.
"""

from __future__ import annotations

import fcntl
import mmap
import os

from linepool import ClientError

_BYTES = 8


class KilledError(ClientError):
    """SCRIPT KILL has ended the script."""


class Kill:
    """The file, in one worker.

    Args:
        directory: That of the store.
    """

    def __init__(self, directory: str) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        self._file = os.open(os.path.join(directory, "scripts.lock"), flags, 0o600)
        os.ftruncate(self._file, _BYTES)
        self._counter = mmap.mmap(self._file, _BYTES)
        self._before = b""
        self._is_locked = False

    def close(self) -> None:
        """Close the file."""
        self._counter.close()
        os.close(self._file)

    def begin(self) -> None:
        """Note that a script begins."""
        self._before = self._counter[:]

    def check(self) -> None:
        """Look, now and then, whether the script is to end.

        Raises:
            KilledError: It is.
        """
        if not self._is_locked:
            fcntl.flock(self._file, fcntl.LOCK_SH)
            self._is_locked = True
        if self._counter[:] != self._before:
            raise KilledError("Script killed by user with SCRIPT KILL...")

    def end(self) -> None:
        """Note that the script has ended."""
        if self._is_locked:
            self._is_locked = False
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def kill(self) -> bool:
        """End the scripts that run; return whether there were any."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            count = int.from_bytes(self._counter[:], "little") + 1
            self._counter[:] = (count % 2**64).to_bytes(_BYTES, "little")
            return True
        fcntl.flock(self._file, fcntl.LOCK_UN)
        return False
