"""The loads that servers are measured under."""

from __future__ import annotations

from attrs import frozen

PROCESSES = 2  # of each server that does not need one per connection


@frozen
class Case:
    """A load.

    Attributes:
        connections: How many there are at once.
        mode: closed: each request after the reply to the last; connect: each on its own
            connection; open: at a fixed rate, with or without replies.
        depth: How many requests are in flight on a connection.
        rate: Requests per second in open mode.
        blocked_ms: One more client sends a request that takes this long, and only the time that it
            takes is measured.
    """

    name: str
    title: str
    connections: int
    mode: str = "closed"
    depth: int = 1
    rate: int = 0
    blocked_ms: int = 0

    @property
    def blocking_processes(self) -> int:
        """How many processes a server needs if each is bound to one connection."""
        extra = 1 if self.blocked_ms else 0
        return PROCESSES if self.mode == "connect" else max(PROCESSES, self.connections + extra)


CASES = [
    Case("pp64", "ping-pong, 64 connections", 64),
    Case("pp16", "ping-pong, 16 connections", 16),
    Case("pp2", "ping-pong, 2 connections", 2),
    Case("pp1", "ping-pong, 1 connection", 1),
    Case("pl16", "pipelined, 16 deep, 2 connections", 2, depth=16),
    Case("pl128", "pipelined, 128 deep, 2 connections", 2, depth=128),
    Case("conn2", "a connection per request, 2 clients", 2, mode="connect"),
    Case("conn16", "a connection per request, 16 clients", 16, mode="connect"),
    Case("session-pp64", "session and middleware, ping-pong, 64 connections", 64),
    Case(
        "session-pl128", "session and middleware, pipelined, 128 deep, 2 connections", 2, depth=128
    ),
    Case("session-write", "each request writes to its session, ping-pong, 64 connections", 64),
    Case("rate1000", "1,000 requests/s on 64 connections", 64, mode="open", rate=1000),
    Case("rate5000", "5,000 requests/s on 64 connections", 64, mode="open", rate=5000),
    Case("parked", "2,000 requests/s on 200 connections", 200, mode="open", rate=2000),
    Case(
        "blocked",
        "1,000 requests/s on 64 connections while a request takes 1 s",
        64,
        mode="open",
        rate=1000,
        blocked_ms=1000,
    ),
    Case("rpc-pp2", "RPC, 2 connections kept", 2),
    Case("rpc-conn2", "RPC, a connection per call, 2 clients", 2, mode="connect"),
    Case("rpc-conn16", "RPC, a connection per call, 16 clients", 16, mode="connect"),
    Case("memcached", "memcached get, 32 bytes, 64 connections", 64),
    Case("redis", "Redis GET, 32 bytes, 64 connections, 16 deep", 64, depth=16),
]
BY_NAME = {case.name: case for case in CASES}

PING_PONG = ("pp64", "pp16", "pp2", "pp1")
PIPELINED = ("pl16", "pl128")
CONNECTING = ("conn2", "conn16")
CLOSED = (*PING_PONG, *PIPELINED, *CONNECTING)
RATES = ("rate1000", "rate5000")
SESSION = ("session-pp64", "session-pl128")
WRITING = ("session-write",)
RPC_CONNECTING = ("rpc-conn2", "rpc-conn16")
RPC = ("rpc-pp2", *RPC_CONNECTING)
COMPARED = ("pp64", "pl16", "conn16")
"""The cases of the servers beside the main ones."""
SHORT = (
    "pp64",
    "pp2",
    "pl128",
    "conn16",
    "session-pp64",
    "rate5000",
    "blocked",
    "memcached",
    "redis",
)
"""The cases of the short mode."""
