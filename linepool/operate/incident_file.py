"""The file of the setting ``incidents``: the incidents in it outlive the server.

It has its whole size from the beginning, and the master maps it: to write an incident down is to write to
memory, and the kernel writes that to the disk. As with the pid file, no link is followed, no other file is
overwritten, and a lock keeps a second server out.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import stat
from collections.abc import Mapping, Sequence
from typing import Any

from linepool.errors import SetupError
from linepool.ipc.incidents import HEAD, TOTAL_BYTES, IncidentMemory, head_of
from linepool.ipc.incidents.words import MAGIC
from linepool.kernel import features
from linepool.kernel.standard import with_high_number
from linepool.operate.held_file import open_held

log = logging.getLogger("linepool")

_MODE = 0o600
_TRIES = 10  # a file that was renamed meanwhile is made anew
_ASIDE = ".old"


def open_incidents(path: str) -> IncidentMemory:
    """Return the memory of the incidents of a new server.

    Args:
        path: Of the file; "": in none.

    Raises:
        SetupError: The file is in use, is not one of incidents, or cannot be made.
    """
    if not path:
        return IncidentMemory()
    path = os.path.abspath(path)
    for _ in range(_TRIES):
        descriptor = open_held(path, _MODE, "incidents")
        with contextlib.ExitStack() as undo:
            undo.callback(os.close, descriptor)
            _check(path, descriptor)
            _lock(path, descriptor)
            found = os.fstat(descriptor).st_size
            if not _is_at(path, descriptor):
                continue
            if found and (why := _unfit(descriptor)):
                aside = path + _ASIDE
                _rename(path, aside)
                log.warning("incidents: %s %s; it is now %s", path, why, aside)
                continue
            if not found:
                _allocate(path, descriptor)
            os.fchmod(descriptor, _MODE)
            mapped = open_held(path, _MODE, "incidents")
            undo.callback(os.close, mapped)
            if not _is_at(path, mapped) or not _is_at(path, descriptor):
                continue
            undo.pop_all()
            try:
                return IncidentMemory(with_high_number(mapped), path, with_high_number(descriptor))
            except OSError as error:
                raise SetupError(f"incidents: cannot map {path}: {error.strerror}") from None
    raise SetupError(f"incidents: {path} is renamed again and again by another process")


def taken_over(piece: tuple[Mapping[str, Any], Sequence[int]] | None, path: str) -> IncidentMemory:
    """Return the memory that another program has handed over; a new one if this program cannot read that.

    Args:
        piece: Its facts and descriptors; None: the other program has none.
        path: The setting.
    """
    if piece is not None:
        facts, descriptors = dict(piece[0]), list(piece[1])
        try:
            return IncidentMemory.taken_over(facts, descriptors)
        except (ValueError, OSError) as error:
            log.warning("incidents of the program before are left: %s", error)
            for descriptor in descriptors:  # and so the lock of the file
                with contextlib.suppress(OSError):
                    os.close(descriptor)
    try:
        return open_incidents(path)
    except SetupError as error:
        log.error("%s; they are in memory from now on", error)  # noqa: TRY400
        return IncidentMemory()


def _check(path: str, descriptor: int) -> None:
    """Raise SetupError if a file belongs to another user, or is not a file of incidents."""
    found = os.fstat(descriptor)
    if stat.S_ISREG(found.st_mode) and found.st_uid != os.geteuid():
        raise SetupError(
            f"incidents: {path} belongs to another user (uid {found.st_uid}); remove it, or give another path"
        )
    is_file = stat.S_ISREG(found.st_mode) and found.st_nlink <= 1  # 0: it has just been removed
    if not is_file or os.pread(descriptor, len(MAGIC), 0) not in (b"", MAGIC, bytes(len(MAGIC))):
        raise SetupError(
            f"incidents: {path} exists and is not a file of incidents; remove it, or give another path"
        )


def _lock(path: str, descriptor: int) -> None:
    """Lock a file for as long as this server lives, also over an exec (flock(2))."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno != errno.EWOULDBLOCK:
            raise SetupError(f"incidents: cannot lock {path}: {error.strerror}") from None
        raise SetupError(f"incidents: {path} is in use by another server") from None


def _unfit(descriptor: int) -> str:
    """Return why the incidents in a file cannot be gone on with; "": they can."""
    head = os.pread(descriptor, HEAD.size, 0)
    if os.fstat(descriptor).st_size != TOTAL_BYTES:
        return "is damaged: its size is wrong"
    if head not in (head_of(), bytes(HEAD.size)):  # zeros: a server ended while it was making it
        return "is of another version of linepool"
    return ""


def _rename(path: str, aside: str) -> None:
    try:
        os.rename(path, aside)
    except OSError as error:
        raise SetupError(f"incidents: cannot rename {path} to {aside}: {error.strerror}") from None


def _allocate(path: str, descriptor: int) -> None:
    """Give a new file its size, so that no later write finds the disk full."""
    try:
        if not features.FALLOCATE:
            _write_zeros(descriptor)
            return
        try:
            os.posix_fallocate(descriptor, 0, TOTAL_BYTES)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                raise
            _write_zeros(
                descriptor
            )  # the file system cannot, and the C library does not do it instead
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(path)
        raise SetupError(
            f"incidents: cannot allocate {TOTAL_BYTES:,} bytes for {path}: {error.strerror}"
        ) from None


def _write_zeros(descriptor: int) -> None:
    at = 0
    while at < TOTAL_BYTES:
        at += os.pwrite(descriptor, bytes(TOTAL_BYTES - at), at)


def _is_at(path: str, descriptor: int) -> bool:
    """Whether a path still leads to an open file."""
    try:
        return os.path.samestat(os.lstat(path), os.fstat(descriptor))
    except OSError:
        return False
