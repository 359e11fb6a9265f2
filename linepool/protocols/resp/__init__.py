"""RESP, the protocol of Redis, and the values that its handlers take and return."""

from linepool.protocols.resp.clients import ClientId
from linepool.protocols.resp.facts import CommandFacts, read_facts
from linepool.protocols.resp.protocol import Commands, Queued, Resp
from linepool.protocols.resp.values import OK, NullArray, PerVersion, Push, Status, Verbatim

__all__ = [
    "OK",
    "ClientId",
    "CommandFacts",
    "Commands",
    "NullArray",
    "PerVersion",
    "Push",
    "Queued",
    "Resp",
    "Status",
    "Verbatim",
    "read_facts",
]
