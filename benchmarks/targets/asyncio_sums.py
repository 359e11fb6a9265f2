"""The smallest sums server on asyncio streams: the yardstick of pipeline.py. Prints its port."""

from __future__ import annotations

import asyncio


async def serve_client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while line := await reader.readline():
        command, a, b = line.split()
        if command.upper() == b"ADD":
            writer.write(b"%d\n" % (int(a) + int(b)))
            await writer.drain()
    writer.close()
    await writer.wait_closed()


async def main() -> None:
    server = await asyncio.start_server(serve_client, "127.0.0.1", 0)
    print(f"listening on 127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
