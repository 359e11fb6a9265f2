"""What both clients do with their sockets."""

from __future__ import annotations

import socket


def set_options(sock: socket.socket) -> None:
    """Set the options of a connection: TCP sends at once, and notices a server that is gone."""
    if sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


def is_quiet(sock: socket.socket) -> bool:
    """Whether the stream has not ended and nothing waits to be read."""
    try:
        sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False
