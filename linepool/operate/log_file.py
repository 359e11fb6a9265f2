"""Where the log's lines go: standard error, or a file that all processes of the server append to.

A file may be renamed at any time, as logrotate does. The processes go on in the renamed one until the master
opens the path anew and counts that in the log's epoch, which they share; each of them compares the epoch
before it writes, and then opens the path too. A line is one write(2), and appended (O_APPEND in open(2)), so
no line is lost, torn or mixed with another one.
"""

from __future__ import annotations

import contextlib
import os
import select
import stat
from collections.abc import Mapping, Sequence
from typing import Any

from linepool.errors import SetupError
from linepool.kernel.sockets import is_open
from linepool.kernel.standard import with_high_number

_MODE = 0o640
# A pipe without a reader is an error, not a wait.
_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
_STREAMS = {1: "stdout", 2: "stderr"}
_NOWAIT: int | None = getattr(os, "RWF_NOWAIT", None)


class StandardStream:
    """Standard error or standard output, whatever that is.

    Args:
        descriptor: 2 or 1.

    Attributes:
        trouble: What is the matter if it takes no more.
    """

    def __init__(self, descriptor: int = 2) -> None:
        self._descriptor = descriptor
        self.trouble = f"{_STREAMS[descriptor]} is not being read"

    def write(self, data: bytes, _epoch: int, patience: float = 0.0) -> bytes:
        """Write without blocking; return what could not be written.

        Args:
            data: Whole lines.
            patience: Seconds for which it may block all the same, until there is room.
        """
        return write_at_once(self._descriptor, data, patience)


class LogFile:
    """A file that several processes append to.

    Args:
        path: The file; it is created if it is missing.
        owner: The user and the group that other processes of the server run as; None: as this one.
        setting: That names it, for the message.

    Attributes:
        path: The file, absolute.
        trouble: What is the matter if it takes no more.
        failure: Why the path could not be opened anew, so that this process goes on in the old file; "": it
            could, or that was told.

    Raises:
        SetupError: It cannot be opened; the text says why.
    """

    def __init__(
        self, path: str, owner: tuple[int, int] | None = None, setting: str = "log_file"
    ) -> None:
        self._use_path(path, owner)
        try:
            self._descriptor = with_high_number(self._opened(create=True))
        except OSError as error:
            raise SetupError(f"{setting}: cannot open {self.path}: {error.strerror}") from None

    def _use_path(self, path: str, owner: tuple[int, int] | None) -> None:
        self.path = os.path.abspath(path)
        self.trouble = f"{self.path} cannot be written"
        self.failure = ""
        self._owner = owner
        self._epoch = 0

    def handed_over(self) -> tuple[dict[str, Any], list[int]]:
        """Return what another program needs to take it over, for JSON, and descriptors; it keeps them."""
        return {"path": self.path, "epoch": self._epoch, "owner": self._owner}, [self._descriptor]

    @classmethod
    def taken_over(cls, facts: Mapping[str, Any], descriptors: Sequence[int]) -> LogFile:
        """Return the file that another program has handed over; the new object owns the descriptor."""
        file = cls.__new__(cls)
        file._use_path(facts["path"], facts["owner"] and tuple(facts["owner"]))
        file._epoch = facts["epoch"]
        file._descriptor = with_high_number(descriptors[0])
        return file

    def write(self, data: bytes, epoch: int, patience: float = 0.0) -> bytes:
        """Write without blocking; return what could not be written.

        Args:
            data: Whole lines.
            epoch: Counts how often the master has opened the path anew.
            patience: Seconds for which it may block all the same, until there is room.
        """
        self.follow(epoch)
        left = write_at_once(self._descriptor, data, patience)
        if left and not is_open(self._descriptor):  # a handler has closed it
            with contextlib.suppress(OSError):
                self._descriptor = with_high_number(self._opened(create=False))
                left = write_at_once(self._descriptor, left)
        return left

    def follow(self, epoch: int) -> None:
        """Open the path anew, if the master has; see ``write``."""
        if epoch != self._epoch:
            self._epoch = epoch
            try:
                self._use(self._opened(create=False))
            except OSError as error:
                self.failure = error.strerror or str(error)

    def write_once(self, data: bytes) -> bytes:
        """Write with one write(2); return what was not written."""
        try:
            return data[os.write(self._descriptor, data) :]
        except OSError:
            return data

    @property
    def is_regular(self) -> bool:
        """Whether it is a regular file, so not a pipe or a device."""
        with contextlib.suppress(OSError):
            return stat.S_ISREG(os.fstat(self._descriptor).st_mode)
        return False

    def reopen(self, epoch: int) -> None:
        """Open the path anew, and create the file if it is missing; for the master.

        Args:
            epoch: That of the new file.

        Raises:
            OSError: It cannot be opened; nothing has changed.
        """
        self._use(self._opened(create=True))
        self._epoch = epoch

    def close(self) -> None:
        """Close it."""
        os.close(self._descriptor)

    def _opened(self, *, create: bool) -> int:
        flags = _FLAGS | (os.O_CREAT if create else 0)
        if self._owner is None:
            return os.open(self.path, flags, _MODE)
        # The owner may be able to put a link to any file in its place.
        descriptor = os.open(self.path, flags | os.O_NOFOLLOW, _MODE)
        found = os.fstat(descriptor)
        if create and stat.S_ISREG(found.st_mode) and found.st_nlink == 1:
            with contextlib.suppress(OSError):  # then the others go on in the old file, and say so
                os.fchown(descriptor, *self._owner)
        return descriptor

    def _use(self, descriptor: int) -> None:
        """Put a new file in the place of the old one, under its number."""
        try:
            os.dup2(descriptor, self._descriptor, inheritable=False)
        finally:
            os.close(descriptor)


def make(path: str, owner: tuple[int, int] | None) -> None:
    """Create a file that is missing.

    Raises:
        OSError: It cannot be created.
    """
    file = LogFile.__new__(LogFile)
    file._use_path(path, owner)
    os.close(file._opened(create=True))


def write_at_once(descriptor: int, data: bytes, patience: float = 0.0) -> bytes:
    """Write without blocking, or wait for room for ``patience`` seconds; return what could not be written.

    A file takes it whole. A pipe that is writable has room for PIPE_BUF bytes (poll(2), pipe(7)), and only
    these come without bytes of other processes in between; hence the try to write more than that at once.
    """
    poller = select.poll()
    poller.register(descriptor, select.POLLOUT)
    with contextlib.suppress(OSError):
        mode = os.fstat(descriptor).st_mode
        most = len(data) if stat.S_ISREG(mode) else select.PIPE_BUF
        if stat.S_ISFIFO(mode) and len(data) > most:
            data = data[_written_at_once(descriptor, data) :]
        while data and poller.poll(1000 * patience):
            data = data[os.write(descriptor, data[:most]) :]
    return data


def _written_at_once(descriptor: int, data: bytes) -> int:
    """Write what a pipe has room for, in one piece; return how much that was.

    0 if the pipe is full, or if the kernel cannot do so (RWF_NOWAIT of a pipe, pwritev2(2); Linux 6.4 can).
    """
    if _NOWAIT is None:
        return 0
    try:
        return os.pwritev(descriptor, [data], -1, _NOWAIT)
    except OSError:
        return 0
