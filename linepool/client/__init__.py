"""A client of servers that speak the line protocol: ``Client``, and ``AsyncClient`` for asyncio.

They send framed requests (docs/line-protocol.md). ``core`` is bytes alone; ``flow`` is a call from its
beginning to its end, written once as coroutines; ``blocking`` and ``asynchronous`` run these.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from linepool.client.deadlines import deadline
from linepool.client.errors import CallTimeout, ConnectionFailed, LoginRefused, UnexpectedReply
from linepool.client.identity import request_id
from linepool.values.unset import UNSET

if TYPE_CHECKING:
    from linepool.client.asynchronous import AsyncClient, AsyncPipeline
    from linepool.client.blocking import Client, Pipeline
    from linepool.client.calls import Pending, PipelineCalls
    from linepool.client.command import Command
    from linepool.client.hooks import Call
else:
    # asyncio takes longer to import than all of this.
    _HOMES = {
        "AsyncClient": "asynchronous",
        "AsyncPipeline": "asynchronous",
        "Call": "hooks",
        "Client": "blocking",
        "Command": "command",
        "Pending": "calls",
        "Pipeline": "blocking",
        "PipelineCalls": "calls",
    }

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module 'linepool.client' has no attribute {name!r}")
        value = getattr(importlib.import_module(f"linepool.client.{_HOMES[name]}"), name)
        globals()[name] = value
        return value


__all__ = [
    "UNSET",
    "AsyncClient",
    "AsyncPipeline",
    "Call",
    "CallTimeout",
    "Client",
    "Command",
    "ConnectionFailed",
    "LoginRefused",
    "Pending",
    "Pipeline",
    "PipelineCalls",
    "UnexpectedReply",
    "deadline",
    "request_id",
]
