"""A server on uvloop that replies +PONG to each request of redis-benchmark; with a certificate, over TLS.

python pong.py PORT [CERTIFICATE]
"""

from __future__ import annotations

import asyncio
import ssl
import sys
from typing import cast

import uvloop


class Pong(asyncio.Protocol):
    """One connection, with a buffer for an incomplete line."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)
        self._rest = b""

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        if requests := sum(line.startswith(b"*") for line in lines):
            self._transport.write(b"+PONG\r\n" * requests)


async def serve(port: int, certificate: str) -> None:
    context = None
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
    server = await asyncio.get_running_loop().create_server(Pong, "127.0.0.1", port, ssl=context)
    print("ready", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), (sys.argv[2:] or [""])[0]))
