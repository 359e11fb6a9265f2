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
    """One connection, in its own thread or process."""

    # Otherwise the second of two pipelined replies waits for the client's delayed ACK.
    disable_nagle_algorithm = True

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):
            for line in self.rfile:
                self.wfile.write(answer(line))


class Threading(socketserver.ThreadingTCPServer):
    """A thread per connection."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 1024  # with the default of 5, simultaneous clients wait for 1 s


class Forking(socketserver.ForkingTCPServer):
    """A process per connection."""

    allow_reuse_address = True
    max_children = 256  # with the default of 40, the 41st client is never served
    request_queue_size = 1024


def main() -> None:
    kind = {"threading": Threading, "forking": Forking}[sys.argv[1]]
    with kind(("127.0.0.1", int(sys.argv[2])), Sums) as server:
        print("ready", file=sys.stderr, flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
