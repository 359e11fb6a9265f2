"""The socket on which a service manager, such as systemd, hears from its services (sd_notify(3))."""

from __future__ import annotations

import socket

from linepool.address import unix_address


class NotifySocket:
    """The sending end; it never waits.

    Args:
        path: The path of the receiver's socket, or ``@NAME``, an abstract one.
    """

    def __init__(self, path: str) -> None:
        self._address = unix_address(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)

    def send(self, *assignments: str) -> None:
        """Send assignments, such as ``READY=1``, as one datagram.

        Raises:
            OSError: It was not sent. BlockingIOError: the receiver's queue is full.
        """
        self._socket.sendto("\n".join(assignments).encode(errors="replace"), self._address)

    def close(self) -> None:
        """Close this process's copy."""
        self._socket.close()
