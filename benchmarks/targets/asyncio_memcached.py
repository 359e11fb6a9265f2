"""The memcached commands get and set on asyncio or uvloop: one dict in one process.

Prints ``ready`` to stderr. It has no expiry, no limit and no other command.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
from typing import cast

_BACKLOG = 1024  # as linepool's
_EOL = 2  # bytes

items: dict[bytes, tuple[bytes, bytes]] = {}
"""Flags and value, by key."""


def get(keys: list[bytes]) -> bytes:
    """Return the reply to a get."""
    values = [(key, *items[key]) for key in keys if key in items]
    parts = [
        b"VALUE %b %b %d\r\n%b\r\n" % (key, flags, len(data), data) for key, flags, data in values
    ]
    return b"".join(parts) + b"END\r\n"


class Memcached(asyncio.Protocol):
    """One connection, with a buffer for an incomplete request."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)  # uvloop's is not a subclass
        self._buffer = b""

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data
        replies = []
        while (end := buffer.find(b"\r\n")) >= 0:
            command, *words = buffer[:end].split()
            rest = buffer[end + _EOL :]
            if command == b"get":
                replies.append(get(words))
            elif command == b"set":
                size = int(words[3])
                if len(rest) < size + _EOL:
                    break
                items[words[0]] = words[1], rest[:size]
                rest = rest[size + _EOL :]
                replies.append(b"STORED\r\n")
            else:
                replies.append(b"ERROR\r\n")
            buffer = rest
        self._buffer = buffer
        if replies:
            self._transport.write(b"".join(replies))


async def serve_streams(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Serve one connection on streams."""
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
        while line := await reader.readline():
            command, *words = line.split()
            if command == b"get":
                writer.write(get(words))
            elif command == b"set":
                data = await reader.readexactly(int(words[3]) + _EOL)
                items[words[0]] = words[1], data[:-_EOL]
                writer.write(b"STORED\r\n")
            else:
                writer.write(b"ERROR\r\n")
            await writer.drain()
    writer.close()


async def serve(style: str, port: int) -> None:
    """Serve without end."""
    server: asyncio.AbstractServer
    if style == "protocol":
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Memcached, "127.0.0.1", port, backlog=_BACKLOG)
    else:
        server = await asyncio.start_server(serve_streams, "127.0.0.1", port, backlog=_BACKLOG)
    print("ready", file=sys.stderr, flush=True)
    async with server:
        await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], default="asyncio")
    parser.add_argument("--style", choices=["protocol", "streams"], default="protocol")
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    factory = None
    if options.loop == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(serve(options.style, options.port))


if __name__ == "__main__":
    main()
