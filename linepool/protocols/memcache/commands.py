"""The commands that a memcached server has without a store: version, verbosity, mn, quit; and the log-in."""

from __future__ import annotations

from linepool.errors import ClientError
from linepool.login import Login
from linepool.protocols.base import Builtin
from linepool.protocols.memcache.meta import Meta
from linepool.protocols.memcache.parser import MemcacheParser
from linepool.session import Reply, body


def version(protocol: MemcacheParser, *_ignored: bytes) -> str:
    """Return the server's version."""
    return f"VERSION {protocol.version}"


def verbosity(level: bytes) -> None:
    """Do nothing and reply OK: the server's settings control logging."""


def mn() -> Meta:
    """Mark the end of a row of quiet meta commands."""
    return Meta("MN")


def log_in(
    login: Login,
    key: bytes,
    flags: bytes,
    exptime: bytes,
    size: int,
    data: bytes = body("size"),
) -> bool:
    """Log in: the data are a user's name and a password."""
    del key, flags, exptime, size
    words = [word for word in data.decode("utf-8", "replace").split(" ") if word]
    if len(words) < 2:
        raise ClientError("bad authentication token format")
    login(*words[:2])
    return True


def quit_(*_ignored: bytes) -> Reply:
    """Close the connection without a reply."""
    return Reply(raw=b"", close=True)


LOG_IN = "set before log-in"
"""The name of the command that a set is before the client has logged in; no client can write it."""
LOGIN: tuple[Builtin, ...] = (((LOG_IN,), log_in),)
BUILTINS: tuple[Builtin, ...] = (
    (("version",), version),
    (("verbosity",), verbosity),
    (("mn",), mn),
    (("quit",), quit_),
)
