"""lines_app.py and linepool's own protocol code in one process: unguarded.py PORT.

There is no master, no other process, no board and no deadline; uvloop moves the bytes.
"""

from __future__ import annotations

import asyncio
import sys
from typing import cast

import lines_app  # noqa: F401 - registers its handlers
import uvloop

from linepool.app import default
from linepool.conversation import Conversation
from linepool.session import Session

_BACKLOG = 1024  # as linepool's

service = default.freeze()


class Unguarded(asyncio.Protocol):
    """One connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)  # uvloop's is not a subclass
        self._conversation = Conversation(service, Session(), {})

    def data_received(self, data: bytes) -> None:
        self._conversation.feed(data)
        self._transport.write(b"".join(self._conversation.answers()))


async def serve(port: int) -> None:
    """Serve without end."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Unguarded, "127.0.0.1", port, backlog=_BACKLOG)
    print("ready", file=sys.stderr, flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
