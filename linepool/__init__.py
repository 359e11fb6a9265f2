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

from linepool.version import __version__ as __version__

if TYPE_CHECKING:
    from linepool import cache
    from linepool.app import (
        App,
        authenticate,
        config,
        handler,
        middleware,
        on_connect,
        on_disconnect,
        on_error,
        on_reload,
        on_start,
        on_stop,
        on_worker_end,
        on_worker_exit,
        on_worker_start,
        resource,
        unknown,
        when_ready,
    )
    from linepool.client import AsyncClient, Client
    from linepool.encryption import Tls
    from linepool.errors import (
        ClientError,
        LinepoolError,
        ReplyError,
        RequestTimeout,
        ServerError,
        SetupError,
        UnknownCommand,
    )
    from linepool.events import ReloadEnd, ServerReady, WorkerEnd
    from linepool.login import Login
    from linepool.protocols.base import (
        Bad,
        Limits,
        Protocol,
        Request,
    )
    from linepool.protocols.dialogue import Dialogue
    from linepool.protocols.jsonrpc import JsonRpc
    from linepool.protocols.line import Line
    from linepool.protocols.memcache import Memcache
    from linepool.protocols.resp import Resp
    from linepool.pubsub.messages import (
        Message,
        PubSub,
    )
    from linepool.questions import Answers, Ask
    from linepool.script import run
    from linepool.server_state import server_stats, server_status
    from linepool.session import (
        Argument,
        Connection,
        Range,
        Reply,
        Rest,
        Secret,
        Session,
        Verb,
        body,
    )
    from linepool.waiting import (
        Wait,
        Waited,
        Waiters,
    )
else:
    # Imported at first use: an app speaks one protocol, and a command such as ``linepool health`` needs
    # none of it.
    _HOMES = {
        "linepool.app": (
            "App",
            "authenticate",
            "config",
            "handler",
            "middleware",
            "on_connect",
            "on_disconnect",
            "on_error",
            "on_reload",
            "on_start",
            "on_stop",
            "on_worker_end",
            "on_worker_exit",
            "on_worker_start",
            "resource",
            "unknown",
            "when_ready",
        ),
        "linepool.cache": ("cache",),
        "linepool.client": ("AsyncClient", "Client"),
        "linepool.encryption": ("Tls",),
        "linepool.errors": (
            "ClientError",
            "LinepoolError",
            "ReplyError",
            "RequestTimeout",
            "ServerError",
            "SetupError",
            "UnknownCommand",
        ),
        "linepool.events": ("ReloadEnd", "ServerReady", "WorkerEnd"),
        "linepool.login": ("Login",),
        "linepool.protocols.base": (
            "Bad",
            "Limits",
            "Protocol",
            "Request",
        ),
        "linepool.protocols.dialogue": ("Dialogue",),
        "linepool.protocols.jsonrpc": ("JsonRpc",),
        "linepool.protocols.line": ("Line",),
        "linepool.protocols.memcache": ("Memcache",),
        "linepool.protocols.resp": ("Resp",),
        "linepool.pubsub.messages": (
            "Message",
            "PubSub",
        ),
        "linepool.questions": ("Answers", "Ask"),
        "linepool.script": ("run",),
        "linepool.server_state": ("server_stats", "server_status"),
        "linepool.session": (
            "Argument",
            "Connection",
            "Range",
            "Reply",
            "Rest",
            "Secret",
            "Session",
            "Verb",
            "body",
        ),
        "linepool.waiting": ("Wait", "Waited", "Waiters"),
    }
    _HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

    def __getattr__(name: str) -> Any:
        if name not in _HOME_OF:
            raise AttributeError(f"module 'linepool' has no attribute {name!r}")
        module = importlib.import_module(_HOME_OF[name])
        value = module if module.__name__ == f"linepool.{name}" else getattr(module, name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})


__all__ = [
    "Answers",
    "App",
    "Argument",
    "Ask",
    "AsyncClient",
    "Bad",
    "Client",
    "ClientError",
    "Connection",
    "Dialogue",
    "JsonRpc",
    "Limits",
    "Line",
    "LinepoolError",
    "Login",
    "Memcache",
    "Message",
    "Protocol",
    "PubSub",
    "Range",
    "ReloadEnd",
    "Reply",
    "ReplyError",
    "Request",
    "RequestTimeout",
    "Resp",
    "Rest",
    "Secret",
    "ServerError",
    "ServerReady",
    "Session",
    "SetupError",
    "Tls",
    "UnknownCommand",
    "Verb",
    "Wait",
    "Waited",
    "Waiters",
    "WorkerEnd",
    "authenticate",
    "body",
    "cache",
    "config",
    "handler",
    "middleware",
    "on_connect",
    "on_disconnect",
    "on_error",
    "on_reload",
    "on_start",
    "on_stop",
    "on_worker_end",
    "on_worker_exit",
    "on_worker_start",
    "resource",
    "run",
    "server_stats",
    "server_status",
    "unknown",
    "when_ready",
]
