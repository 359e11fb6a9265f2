"""A sum with linepool's own protocol code in one process: unguarded.py PORT.

There is no master, no other process, no board and no deadline; uvloop moves the bytes.
"""

from __future__ import annotations

import asyncio
import sys
from typing import cast

from linepool import App, Session
from linepool.batch import answers
from linepool.conversation import Conversation
from linepool.resources import Resources

_BACKLOG = 1024  # as linepool's

app = App()


@app.handler
def add(a: int, b: int) -> int:
    """Add two whole numbers."""
    return a + b


service = app.freeze()


class Unguarded(asyncio.Protocol):
    """One connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)  # uvloop's is not a subclass
        self._conversation = Conversation(service, Session(), Resources())

    def data_received(self, data: bytes) -> None:
        self._conversation.feed(data)
        self._transport.write(b"".join(answers(self._conversation)))


async def serve(port: int) -> None:
    """Serve without end."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Unguarded, "127.0.0.1", port, backlog=_BACKLOG)
    print("ready", file=sys.stderr, flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    import uvloop

    uvloop.run(serve(int(sys.argv[1])))
