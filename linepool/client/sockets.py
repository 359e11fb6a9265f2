"""What both clients do with their sockets."""

from __future__ import annotations

import select
import socket
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import os
    import ssl


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


class TlsOptions(NamedTuple):
    """A client's options for TLS.

    Attributes:
        tls: Whether all addresses use it, or how; None: those that say so, or all if there is a file.
        ca: The file or directory of the CAs that are trusted; None: the system's.
        cert: The file of the client's certificate, with its key or without.
        key: The file of that key.
    """

    tls: bool | ssl.SSLContext | None = None
    ca: str | os.PathLike[str] | None = None
    cert: str | os.PathLike[str] | None = None
    key: str | os.PathLike[str] | None = None

    @property
    def has_files(self) -> bool:
        """Whether a file is given."""
        return not (self.ca is self.cert is self.key is None)

    @property
    def is_for_all(self) -> bool:
        """Whether addresses without a scheme use TLS too."""
        return self.has_files if self.tls is None else self.tls is not False


class TlsError(OSError):
    """TLS cannot be set up on a connection, and another try would not change that."""
