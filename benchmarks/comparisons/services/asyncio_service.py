"""The service on asyncio streams: asyncio_service.py PORT [--uvloop]."""

from __future__ import annotations

import asyncio
import contextlib
import sys

import work

VERSION = 1


async def answer(line: bytes) -> str:
    """Return the reply to one line."""
    try:
        match line.decode().split():
            case ["COLLATZ", n]:
                return str(work.collatz(int(n)))
            case ["SLEEP", seconds]:
                await asyncio.sleep(float(seconds))  # as an asynchronous database driver waits
                return "OK"
            case ["CRASH"]:
                work.crash()
            case ["VERSION"]:
                return str(VERSION)
    except ValueError as error:
        return f"CLIENT_ERROR {error}"
    return "ERROR unknown command"


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Serve one connection."""
    with contextlib.closing(writer), contextlib.suppress(ConnectionError):
        while line := await reader.readline():
            writer.write(f"{await answer(line)}\n".encode())
            await writer.drain()


async def main() -> None:
    server = await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()


if __name__ == "__main__":
    if "--uvloop" in sys.argv:
        import uvloop

        uvloop.run(main())
    else:
        asyncio.run(main())
