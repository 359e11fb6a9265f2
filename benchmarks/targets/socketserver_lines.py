"""The commands of lines_app.py on the standard library, a thread per connection.

socketserver_lines.py PORT
"""

from __future__ import annotations

import contextlib
import socketserver
import sys
import time


def answer(line: bytes) -> bytes:
    """Return the reply to one line."""
    match line.split():
        case [b"ADD", a, b]:
            return b"%d\n" % (int(a) + int(b))
        case [b"SLEEP", ms]:
            time.sleep(int(ms) / 1000)
            return b"OK\n"
    return b"ERROR unknown command\n"


class Lines(socketserver.StreamRequestHandler):
    """One connection."""

    # Otherwise the second of two pipelined replies waits for the client's delayed ACK.
    disable_nagle_algorithm = True

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):
            for line in self.rfile:
                self.wfile.write(answer(line))


class Server(socketserver.ThreadingTCPServer):
    """A thread per connection."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 1024  # with the default of 5, simultaneous clients wait for 1 s


def main() -> None:
    with Server(("127.0.0.1", int(sys.argv[1])), Lines) as server:
        print("ready", file=sys.stderr, flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
