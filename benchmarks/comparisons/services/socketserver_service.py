"""The service on the standard library's socketserver: socketserver_service.py PORT [--fork]."""

from __future__ import annotations

import contextlib
import socketserver
import sys
import time

import work

VERSION = 1


def answer(line: bytes) -> str:
    """Return the reply to one line."""
    try:
        match line.decode().split():
            case ["COLLATZ", n]:
                return str(work.collatz(int(n)))
            case ["SLEEP", seconds]:
                time.sleep(float(seconds))
                return "OK"
            case ["CRASH"]:
                work.crash()
            case ["VERSION"]:
                return str(VERSION)
    except ValueError as error:
        return f"CLIENT_ERROR {error}"
    return "ERROR unknown command"


class Connection(socketserver.StreamRequestHandler):
    """One connection, in a thread or a process of its own."""

    disable_nagle_algorithm = True

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):
            for line in self.rfile:
                self.wfile.write(f"{answer(line)}\n".encode())


class Threads(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128  # the default of 5 has clients wait that connect together


class Processes(socketserver.ForkingTCPServer):
    allow_reuse_address = True
    request_queue_size = 128


if __name__ == "__main__":
    kind = Processes if "--fork" in sys.argv else Threads
    with kind(("127.0.0.1", int(sys.argv[1])), Connection) as server:
        server.serve_forever()
