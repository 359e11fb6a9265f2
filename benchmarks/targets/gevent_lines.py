"""The sums server on gevent's StreamServer: gevent_lines.py PORT [PROCESSES]."""

from __future__ import annotations

import sys

import gevent
from gevent.server import StreamServer
from gevent.socket import socket


def answer(line: bytes) -> bytes:
    """Return the reply to one line."""
    match line.split():
        case [b"ADD", a, b]:
            return b"%d\n" % (int(a) + int(b))
    return b"ERROR unknown command\n"


def serve_client(client: socket, _address: tuple[str, int]) -> None:
    """Answer line by line until the client closes."""
    with client.makefile("rb") as requests:
        try:
            for line in requests:
                client.sendall(answer(line))
        except ConnectionError:
            pass


def main() -> None:
    server = StreamServer(("127.0.0.1", int(sys.argv[1])), serve_client)
    server.init_socket()
    is_child = False
    for _ in range(int(sys.argv[2]) - 1 if len(sys.argv) > 2 else 0):
        if gevent.fork() == 0:
            is_child = True
            break
    server.start()
    if not is_child:
        print("ready", file=sys.stderr, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
