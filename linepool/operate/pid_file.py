"""The pid file: it names the master, and its lock keeps a second server from starting with the same file.

It is opened by the master, perhaps as root, in a directory that others may be able to write to: no link is
followed, and no file is overwritten that is not a pid file.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import math
import os
import selectors
import stat

from linepool.errors import SetupError
from linepool.operate.held_file import open_held

_MODE = 0o644
_LONGEST = 32  # bytes; more than any pid has digits
_TRIES = 10  # a file that another server has just removed is made anew


class PidFile:
    """A pid file, as something that the master watches; the file goes when it is closed.

    The lock (fcntl(2), F_SETLK) is the process's: the kernel releases it when the process ends, however it
    ends; children do not inherit it; and it stays over an exec, as long as the descriptor does. If this
    process opened the file once more, closing that would release the lock.

    Args:
        path: Where it is.

    Raises:
        SetupError: A server is using it, it is not a pid file, or it cannot be written.
    """

    def __init__(self, path: str) -> None:
        self._use(path, _locked(path))
        content = b"%d\n" % os.getpid()
        try:
            os.pwrite(self.descriptor, content, 0)
            os.ftruncate(self.descriptor, len(content))
        except OSError as error:
            self.close()
            raise SetupError(f"pid_file: cannot write {path}: {error.strerror}") from None

    @classmethod
    def taken_over(cls, path: str, descriptor: int) -> PidFile:
        """Return the pid file of this process, from before an exec; the new object owns the descriptor.

        The pid in it is still the same, so nothing is written: the file system may be full.
        """
        file = cls.__new__(cls)
        file._use(path, descriptor)
        return file

    def _use(self, path: str, descriptor: int) -> None:
        self.path = os.path.abspath(path)
        self.descriptor = descriptor
        self.due_at = math.inf
        os.set_inheritable(descriptor, False)
        os.fchmod(descriptor, _MODE)

    def open(self, selector: selectors.BaseSelector) -> None:
        """Do nothing: there is nothing to wait for."""

    def turn(self) -> None:
        """Do nothing."""

    def abandon(self) -> None:
        """Close a child's copy."""
        os.close(self.descriptor)
        self.descriptor = -1

    def close(self) -> None:
        """Remove the file, if it is still this one, and release the lock; done once."""
        if self.descriptor < 0:
            return
        with contextlib.suppress(OSError):
            if _is_at(self.path, self.descriptor):
                os.unlink(self.path)
        self.abandon()


def _locked(path: str) -> int:
    """Return the descriptor of a pid file with the lock."""
    for _ in range(_TRIES):
        descriptor = open_held(path, _MODE, "pid_file")
        with contextlib.ExitStack() as undo:
            undo.callback(os.close, descriptor)
            content = _content(path, descriptor)
            try:
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in (errno.EACCES, errno.EAGAIN):
                    raise SetupError(f"pid_file: cannot lock {path}: {error.strerror}") from None
                pid = f" (pid {content})" if content else ""
                raise SetupError(f"pid_file: {path} is in use by a server{pid}") from None
            if _is_at(path, descriptor):
                undo.pop_all()
                return descriptor
    raise SetupError(f"pid_file: {path} is removed again and again by another process")


def _content(path: str, descriptor: int) -> str:
    """Return the pid in a file; "": it is new.

    Raises:
        SetupError: It is not a pid file.
    """
    found = os.fstat(descriptor)
    if stat.S_ISREG(found.st_mode) and found.st_nlink <= 1:  # 0: it has just been removed
        content = os.pread(descriptor, _LONGEST, 0).strip()
        if not content or (content.isdigit() and found.st_size < _LONGEST):
            return content.decode()
    raise SetupError(
        f"pid_file: {path} exists and is not a pid file; remove it, or give another path"
    )


def _is_at(path: str, descriptor: int) -> bool:
    """Whether a path still leads to an open file."""
    try:
        return os.path.samestat(os.lstat(path), os.fstat(descriptor))
    except OSError:
        return False
