"""A service manager's notify socket, as far as a service sees it (sd_notify(3))."""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from tests.servers import TIMEOUT


class NotifyReceiver:
    """The receiving end of NOTIFY_SOCKET.

    Args:
        path: Where to bind it; ``@NAME``: an abstract socket.

    Attributes:
        path: The value of NOTIFY_SOCKET.
        notices: The datagrams so far, each as its assignments by name.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = str(path)
        self.notices: list[dict[str, str]] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(f"\0{self.path[1:]}" if self.path.startswith("@") else self.path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def waiting(self) -> list[dict[str, str]]:
        """Return the datagrams that wait now."""
        found = []
        while select.select([self._socket], [], [], 0)[0]:
            found.append(self._receive())
        return found

    def until(self, name: str, value: str) -> dict[str, str]:
        """Return the next datagram with an assignment."""
        for notice in self._coming():
            if notice.get(name) == value:
                return notice
        raise AssertionError(f"{name}={value} did not come; these did: {self.notices}")

    def _coming(self) -> Iterator[dict[str, str]]:
        give_up_at = time.monotonic() + TIMEOUT
        while select.select([self._socket], [], [], max(0, give_up_at - time.monotonic()))[0]:
            yield self._receive()
            if time.monotonic() > give_up_at:  # signs of life come all the time
                return

    def _receive(self) -> dict[str, str]:
        data, passed, _, _ = socket.recv_fds(self._socket, 65536, 16)
        for descriptor in passed:  # BARRIER=1: the sender waits until it is closed
            os.close(descriptor)
        self.notices.append(dict(line.split("=", 1) for line in data.decode().splitlines()))
        return self.notices[-1]
