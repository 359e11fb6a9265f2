"""What both clients do with their sockets."""

from __future__ import annotations

import select
import socket


def set_options(sock: socket.socket) -> None:
    """Set the options of a connection: TCP sends at once, and notices a server that is gone."""
    if sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


class Watch:
    """Sees whether anything is to be read from a socket, or its stream has ended."""

    def __init__(self, sock: socket.socket) -> None:
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)

    def is_quiet(self) -> bool:
        """Whether there is nothing."""
        return not self._poll.poll(0)
