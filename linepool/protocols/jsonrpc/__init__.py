"""JSON-RPC 2.0."""

from linepool.protocols.jsonrpc.protocol import JsonRpc

__all__ = ["JsonRpc"]
