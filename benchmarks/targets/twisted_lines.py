"""The sums server on Twisted's LineReceiver: twisted_lines.py PORT [PROCESSES]."""

from __future__ import annotations

import os
import socket
import sys

from twisted.internet.protocol import Factory
from twisted.protocols.basic import LineReceiver


class Sums(LineReceiver):
    """One connection."""

    delimiter = b"\n"

    def connectionMade(self) -> None:  # noqa: N802 - Twisted's name
        self.transport.setTcpNoDelay(True)

    def lineReceived(self, line: bytes) -> None:  # noqa: N802 - Twisted's name
        match line.split():
            case [b"ADD", a, b]:
                self.sendLine(b"%d" % (int(a) + int(b)))
            case _:
                self.sendLine(b"ERROR unknown command")


def main() -> None:
    listener = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=1024)
    listener.setblocking(False)
    is_child = False
    for _ in range(int(sys.argv[2]) - 1 if len(sys.argv) > 2 else 0):
        if os.fork() == 0:
            is_child = True
            break
    # This import creates the reactor and its epoll descriptor, which processes must not share.
    from twisted.internet import reactor

    reactor.adoptStreamPort(listener.fileno(), socket.AF_INET, Factory.forProtocol(Sums))
    if not is_child:
        print("ready", file=sys.stderr, flush=True)
    reactor.run()


if __name__ == "__main__":
    main()
