"""linepool: plain functions on a TCP port, one line a request, in workers that a master watches.

::

    import linepool

    @linepool.handler
    def add(a: int, b: int) -> int:
        return a + b

    if __name__ == "__main__":
        linepool.run()
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from linepool.app import (
    App,
    handler,
    middleware,
    on_connect,
    on_disconnect,
    on_start,
    on_worker_exit,
    on_worker_start,
    resource,
    unknown,
)
from linepool.errors import (
    ClientError,
    LinepoolError,
    ReplyError,
    RequestTimeout,
    ServerError,
    SetupError,
    UnknownCommand,
)
from linepool.protocols.base import Bad, Limits, Protocol, Request
from linepool.protocols.line import Line
from linepool.pubsub.messages import Message, PubSub
from linepool.script import run
from linepool.session import (
    Connection,
    Range,
    Reply,
    Rest,
    Secret,
    Session,
    Verb,
    body,
)
from linepool.version import __version__ as __version__

# Imported at first use: most apps speak one protocol.
_LAZY = {
    "Dialogue": "linepool.protocols.dialogue",
    "JsonRpc": "linepool.protocols.jsonrpc",
    "Memcache": "linepool.protocols.memcache",
    "Resp": "linepool.protocols.resp",
    "cache": "linepool.cache",
}


if TYPE_CHECKING:
    from linepool import cache as cache
    from linepool.protocols.dialogue import Dialogue as Dialogue
    from linepool.protocols.jsonrpc import JsonRpc as JsonRpc
    from linepool.protocols.memcache import Memcache as Memcache
    from linepool.protocols.resp import Resp as Resp
else:

    def __getattr__(name: str) -> Any:
        if name not in _LAZY:
            raise AttributeError(f"module 'linepool' has no attribute {name!r}")
        module = importlib.import_module(_LAZY[name])
        return module if _LAZY[name] == f"linepool.{name}" else getattr(module, name)


__all__ = [
    "App",
    "Bad",
    "ClientError",
    "Connection",
    "Dialogue",
    "JsonRpc",
    "Limits",
    "Line",
    "LinepoolError",
    "Memcache",
    "Message",
    "Protocol",
    "PubSub",
    "Range",
    "Reply",
    "ReplyError",
    "Request",
    "RequestTimeout",
    "Resp",
    "Rest",
    "Secret",
    "ServerError",
    "Session",
    "SetupError",
    "UnknownCommand",
    "Verb",
    "body",
    "cache",
    "handler",
    "middleware",
    "on_connect",
    "on_disconnect",
    "on_start",
    "on_worker_exit",
    "on_worker_start",
    "resource",
    "run",
    "unknown",
]
