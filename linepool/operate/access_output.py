"""Where the access log goes: standard output, or a file that the workers append to. It never blocks.

The file is opened in each loader, and by the workers anew when the master has counted up the log's epoch, as
``log_file`` says.
"""

from __future__ import annotations

import logging
import os
import select
import stat
from collections.abc import Callable, Iterator

from linepool.kernel.privileges import owner_of
from linepool.operate.log_file import LogFile, make, write_at_once
from linepool.operate.logs import log_epoch, next_log_epoch
from linepool.settings import Settings
from linepool.settings.access import OFF

log = logging.getLogger("linepool")

STANDARD_OUTPUT = "-"


class StandardOutput:
    """Descriptor 1, whatever it is.

    Attributes:
        trouble: What is the matter if it takes no more.
    """

    trouble = "stdout is not being read"

    def write(self, data: bytes) -> bytes:
        """Write whole lines without blocking; return what could not be written."""
        if len(data) <= select.PIPE_BUF or _is_regular(1):
            return write_at_once(1, data)
        return _written(lambda piece: write_at_once(1, piece), data)


class AccessFile:
    """A file.

    Args:
        path: It is created if it is missing.

    Attributes:
        trouble: What is the matter if it takes no more.

    Raises:
        SetupError: It cannot be opened; the text says why.
    """

    def __init__(self, path: str) -> None:
        self._file = LogFile(path, setting="access_log")
        self.trouble = self._file.trouble

    def write(self, data: bytes) -> bytes:
        """Write whole lines without blocking; return what could not be written."""
        file = self._file
        file.follow(log_epoch())
        if file.failure:
            why, file.failure = file.failure, ""
            text = "access log cannot be opened anew pid=%d path=%s why=%r"
            log.warning(text, os.getpid(), file.path, why)
        if len(data) <= select.PIPE_BUF or file.is_regular:
            return file.write_once(data)
        return _written(file.write_once, data)


def _is_regular(descriptor: int) -> bool:
    """Whether a descriptor is a regular file, so not a pipe or a device."""
    try:
        return stat.S_ISREG(os.fstat(descriptor).st_mode)
    except OSError:
        return False


def _written(write: Callable[[bytes], bytes], data: bytes) -> bytes:
    """Write lines in pieces that no other process's lines can cut; return what is left."""
    for piece in _pieces(data):
        data = data[len(piece) :]
        if left := write(piece):
            return left + data
    return b""


def _pieces(data: bytes) -> Iterator[bytes]:
    """Yield lines together as long as a write of them is atomic (pipe(7), PIPE_BUF)."""
    begin = 0
    while len(data) - begin > select.PIPE_BUF:
        end = data.rfind(b"\n", begin, begin + select.PIPE_BUF) + 1
        if end <= begin:  # one line is longer
            end = data.index(b"\n", begin) + 1
        yield data[begin:end]
        begin = end
    yield data[begin:]


def open_output(access_log: str) -> StandardOutput | AccessFile | None:
    """Return where the access log goes; None: it is off.

    Raises:
        SetupError: It cannot be opened; the text says why.
    """
    if access_log == OFF:
        return None
    return StandardOutput() if access_log == STANDARD_OUTPUT else AccessFile(access_log)


def reopen(settings: Settings) -> str:
    """Create the file anew, in the master, and have the workers open it; return its path; "" without a file.

    Raises:
        OSError: It cannot be created; the workers go on in the old one.
    """
    if settings.access_log in (OFF, STANDARD_OUTPUT):
        return ""
    make(settings.access_log, owner_of(settings.user, settings.group))
    next_log_epoch()
    return os.path.abspath(settings.access_log)
