"""The sums server on the standard library: socketserver_lines.py threading|forking PORT."""

from __future__ import annotations

import contextlib
import socketserver
import sys


def answer(line: bytes) -> bytes:
    """Return the reply to one line."""
    match line.split():
        case [b"ADD", a, b]:
            return b"%d\n" % (int(a) + int(b))
    return b"ERROR unknown command\n"


class Sums(socketserver.StreamRequestHandler):
    """One client, in a thread or a process of its own."""

    # Otherwise the second reply to pipelined requests waits for the client's delayed ACK.
    disable_nagle_algorithm = True

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):
            for line in self.rfile:
                self.wfile.write(answer(line))


class Threading(socketserver.ThreadingTCPServer):
    """A thread for each client."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 1024  # with the 5 that are the default, clients at once wait for 1 s


class Forking(socketserver.ForkingTCPServer):
    """A process for each client."""

    allow_reuse_address = True
    max_children = 256  # with the 40 that are the default, the 41st client is never served
    request_queue_size = 1024


def main() -> None:
    kind = {"threading": Threading, "forking": Forking}[sys.argv[1]]
    with kind(("127.0.0.1", int(sys.argv[2])), Sums) as server:
        print("ready", file=sys.stderr, flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
