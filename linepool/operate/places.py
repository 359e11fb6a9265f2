"""Where control sockets without a path of their own are; which directories and servers are trusted."""

from __future__ import annotations

import contextlib
import os
import socket
import stat

from linepool.kernel import features
from linepool.kernel.sockets import credentials_of

_OWN = 0o700


def own_path() -> str | None:
    """Return the path of this process's control socket, in the first directory that can be used.

    ``$XDG_RUNTIME_DIR/linepool``, ``/run/linepool``, ``/tmp/linepool-UID``; it is made if it does not exist.
    None: other users can write to each of them, so the server does without.

    Raises:
        OSError: There is a file of this user's in the place of a directory.
    """
    for where in _directories(os.environ.get("XDG_RUNTIME_DIR", "")):
        if not _is_safe(os.path.dirname(where)):
            continue
        try:
            os.mkdir(where, _OWN)
        except FileExistsError:
            if not os.path.isdir(where) and _is_ours(where):
                raise
        except OSError:  # not permitted, or there is nothing to make it in
            continue
        if is_trusted(where) and os.access(where, os.W_OK | os.X_OK):
            return os.path.join(where, f"{os.getpid()}.sock")
    return None


def searched() -> list[str]:
    """Return the directories in which a server of this user may have its control socket.

    It may have been started with other environment variables than this process.
    """
    user = f"/run/user/{os.geteuid()}"
    return _directories(os.environ.get("XDG_RUNTIME_DIR", ""), user)


def sockets_in(where: str) -> list[str]:
    """Return the paths of the sockets of this user in a directory; none if it cannot be trusted."""
    if not is_trusted(where):
        return []
    with contextlib.suppress(OSError):
        paths = [os.path.join(where, name) for name in sorted(os.listdir(where))]
        return [path for path in paths if path.endswith(".sock") and _is_socket(path)]
    return []


def is_trusted(where: str) -> bool:
    """Whether a directory is this user's, and other users can neither write to it nor replace it."""
    try:
        own = os.lstat(where)
    except OSError:
        return False
    is_own = stat.S_ISDIR(own.st_mode) and own.st_uid == os.geteuid()
    return is_own and not _is_shared(own.st_mode) and _is_safe(os.path.dirname(where))


def is_own_server(sock: socket.socket) -> bool:
    """Whether a connection is to a process of this user; where that cannot be asked, its file says so."""
    _, uid, _ = credentials_of(sock)
    return uid == os.geteuid() or (uid == -1 and not features.PEERCRED)


def _directories(*bases: str) -> list[str]:
    found = [os.path.join(base, "linepool") for base in (*bases, "/run") if os.path.isabs(base)]
    return list(dict.fromkeys([*found, f"/tmp/linepool-{os.geteuid()}"]))  # noqa: S108 - checked


def _is_safe(base: str) -> bool:
    """Whether other users cannot rename what this user has in a directory."""
    try:
        found = os.stat(base)
    except OSError:
        return False
    is_sticky = bool(found.st_mode & stat.S_ISVTX)
    return found.st_uid in (0, os.geteuid()) and (is_sticky or not _is_shared(found.st_mode))


def _is_ours(path: str) -> bool:
    with contextlib.suppress(OSError):
        return os.lstat(path).st_uid == os.geteuid()
    return False


def _is_socket(path: str) -> bool:
    with contextlib.suppress(OSError):
        return _is_ours(path) and stat.S_ISSOCK(os.lstat(path).st_mode)
    return False


def _is_shared(mode: int) -> bool:
    return bool(mode & (stat.S_IWGRP | stat.S_IWOTH))
