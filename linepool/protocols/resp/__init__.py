"""RESP, the protocol of Redis, and the values that its handlers take and return."""

from linepool.protocols.resp.protocol import Queued, Resp
from linepool.protocols.resp.values import OK, NullArray, Push, Status, Verbatim

__all__ = ["OK", "NullArray", "Push", "Queued", "Resp", "Status", "Verbatim"]
