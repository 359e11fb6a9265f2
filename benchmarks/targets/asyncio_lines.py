"""The commands of lines_app.py or session_app.py on asyncio or uvloop, as their users would write them.

Prints ``listening on 127.0.0.1:PORT`` to stderr and, once every process serves, ``ready``.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import NoReturn, cast

_BACKLOG = 1024  # as linepool's


def answer(line: bytes) -> bytes:
    """Return the reply to one line."""
    command, *arguments = line.split()
    if command == b"ADD":
        a, b = arguments
        return b"%d\n" % (int(a) + int(b))
    if command == b"SLEEP":
        time.sleep(int(arguments[0]) / 1000)  # a handler that blocks also blocks its event loop
        return b"OK\n"
    return b"ERROR unknown command\n"


class Lines(asyncio.Protocol):
    """One connection, with a buffer for an incomplete line."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)  # uvloop's is not a subclass
        self._rest = b""

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        if lines:
            self._transport.write(b"".join([answer(line) for line in lines]))


class Sessions(Lines):
    """The commands of session_app.py."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._session: dict[str, int] = {}

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        if lines:
            self._transport.write(b"".join([self._admitted(line) for line in lines]))

    def _admitted(self, line: bytes) -> bytes:
        if self._session.get("banned"):
            return b"CLIENT_ERROR not you\n"
        return self._answer(line)

    def _answer(self, line: bytes) -> bytes:
        command, *arguments = line.split()
        if command == b"ADD":
            a, b = arguments
            return b"%d\n" % (int(a) + int(b) + self._session.get("noted", 0))
        if command == b"NOTE":
            self._session["noted"] = number = int(arguments[0])
            return b"%d\n" % number
        return b"ERROR unknown command\n"


async def serve_streams(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Serve one connection on streams."""
    with contextlib.suppress(ConnectionError):
        while line := await reader.readline():
            writer.write(answer(line))
            await writer.drain()
    writer.close()


async def serve(sock: socket.socket, style: str, ready: Callable[[], None], watched: int) -> None:
    """Serve until the write end of the watched pipe is closed; -1: without end."""
    loop = asyncio.get_running_loop()
    server: asyncio.AbstractServer
    if style != "streams":
        protocol = Sessions if style == "session" else Lines
        server = await loop.create_server(protocol, sock=sock, backlog=_BACKLOG)
    else:
        server = await asyncio.start_server(serve_streams, sock=sock, backlog=_BACKLOG)
    ended = asyncio.Event()
    if watched >= 0:
        loop.add_reader(watched, ended.set)
    ready()
    async with server:
        await ended.wait()
        os._exit(0)  # the parent has ended; there is nothing to clean up


def bound(port: int) -> socket.socket:
    """Return a socket bound to the port; each process has one, and the kernel spreads the clients."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind(("127.0.0.1", port))
    return sock


def run(loop: str, style: str, port: int, ready: Callable[[], None], watched: int) -> NoReturn:
    """Serve in this process."""
    factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    if loop == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(serve(bound(port), style, ready, watched))
    raise SystemExit


def say_ready() -> None:
    print("ready", file=sys.stderr, flush=True)


def run_many(loop: str, style: str, port: int, count: int) -> None:
    """Serve in a number of child processes, until this process ends."""
    lifeline, held = os.pipe()  # never written to; the children see it close when this process ends
    news, ready = os.pipe()
    for _ in range(count):
        if not os.fork():
            os.close(held)
            run(loop, style, port, lambda: os.close(ready), lifeline)
    os.close(ready)
    while os.read(news, 1):  # until the last child has closed its end
        pass
    say_ready()
    signal.pause()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], default="asyncio")
    parser.add_argument("--style", choices=["protocol", "session", "streams"], default="protocol")
    parser.add_argument("--processes", type=int, default=1, metavar="N")
    parser.add_argument("--port", type=int, default=0, help="default: a free one")
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with bound(options.port) as reserved:  # not listening, so it gets no clients
        port = reserved.getsockname()[1]
        print(f"listening on 127.0.0.1:{port}", file=sys.stderr, flush=True)
        if options.processes == 1:
            run(options.loop, options.style, port, say_ready, -1)
        run_many(options.loop, options.style, port, options.processes)


if __name__ == "__main__":
    main()
