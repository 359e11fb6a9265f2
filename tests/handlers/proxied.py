"""What the app sees of a connection through a proxy."""

from __future__ import annotations

import collections
import itertools

from common import announce
from common import pid as _pid  # noqa: F401 - registered by its import

import linepool
from linepool import Session


@linepool.handler
def who(session: Session) -> str:
    """Return the client, the proxy, what the client connected to, and the proxy's id of the connection."""
    proxy = session.proxy
    assert proxy is not None
    return f"{session.peer} {proxy.via} {proxy.destination or '-'} {proxy.unique_id or '-'}"


@linepool.handler
def facts(session: Session) -> list[str]:
    """Return all that is known of the client, as lines."""
    found = [f"peer={session.peer}", f"listener={session.listener}", f"uid={session.uid}"]
    if session.proxy is not None:
        found += [f"proxy.{name}={value}" for name, value in session.proxy.as_json().items()]
    if session.tls is not None:
        found += [f"tls.{name}={getattr(session.tls, name)}" for name in ("version", "server_name")]
    return found


@linepool.handler
def stuck_in_c() -> None:
    """Loop in C without releasing the interpreter's lock."""
    announce()
    collections.deque(itertools.repeat(0), maxlen=0)
