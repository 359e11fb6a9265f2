"""Opening a file that one server holds to itself, such as its pid file."""

from __future__ import annotations

import errno
import os

from linepool.errors import SetupError


def open_held(path: str, mode: int, setting: str) -> int:
    """Return a descriptor of a file to read and write; it is made if there is none.

    Args:
        path: Of the file.
        mode: Of a new file.
        setting: That names the file, for the error.

    Raises:
        SetupError: It cannot be opened, or is a symbolic link.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        return os.open(path, flags, mode)
    except OSError as error:
        reason = error.strerror
        if os.path.islink(path):  # the BSDs have several errors for that
            reason = "it is a symbolic link, which is not followed"
        elif error.errno == errno.ENOENT:
            reason = f"the directory {os.path.dirname(path) or '.'} does not exist"
    raise SetupError(f"{setting}: cannot write {path}: {reason}")
