"""The commands that a memcached server has without a store: version, verbosity, mn, quit."""

from __future__ import annotations

from linepool.protocols.base import Builtin
from linepool.protocols.memcache.meta import Meta
from linepool.protocols.memcache.parser import MemcacheParser
from linepool.session import Reply


def version(protocol: MemcacheParser, *_ignored: bytes) -> str:
    """Return the server's version."""
    return f"VERSION {protocol.version}"


def verbosity(level: bytes) -> None:
    """Do nothing and reply OK: the server's settings control logging."""


def mn() -> Meta:
    """Mark the end of a row of quiet meta commands."""
    return Meta("MN")


def quit_(*_ignored: bytes) -> Reply:
    """Close the connection without a reply."""
    return Reply(raw=b"", close=True)


BUILTINS: tuple[Builtin, ...] = (
    (("version",), version),
    (("verbosity",), verbosity),
    (("mn",), mn),
    (("quit",), quit_),
)
