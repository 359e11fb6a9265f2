"""The service on Twisted's LineReceiver: twisted_service.py PORT."""

from __future__ import annotations

import sys

import work
from twisted.internet import reactor
from twisted.internet.protocol import Factory
from twisted.protocols.basic import LineReceiver

VERSION = 1


class Service(LineReceiver):
    """One connection."""

    delimiter = b"\n"

    def connectionMade(self) -> None:  # noqa: N802 - Twisted's name
        self.transport.setTcpNoDelay(True)

    def lineReceived(self, line: bytes) -> None:  # noqa: N802 - Twisted's name
        try:
            match line.decode().split():
                case ["COLLATZ", n]:
                    self.reply(str(work.collatz(int(n))))
                case ["SLEEP", seconds]:
                    self.pauseProducing()  # replies come in the order of the requests
                    reactor.callLater(float(seconds), self.wake)
                case ["CRASH"]:
                    work.crash()
                case ["VERSION"]:
                    self.reply(str(VERSION))
                case _:
                    self.reply("ERROR unknown command")
        except ValueError as error:
            self.reply(f"CLIENT_ERROR {error}")

    def wake(self) -> None:
        self.reply("OK")
        self.resumeProducing()

    def reply(self, text: str) -> None:
        self.sendLine(text.encode())


if __name__ == "__main__":
    reactor.listenTCP(
        int(sys.argv[1]), Factory.forProtocol(Service), backlog=128, interface="127.0.0.1"
    )
    reactor.run()
