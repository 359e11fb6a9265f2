"""An app whose handlers end, or change, the listeners of their server."""

from __future__ import annotations

import os
import socket
import stat

import linepool


def _listeners() -> list[int]:
    found = []
    for number in map(int, os.listdir("/proc/self/fd")):
        try:
            if not stat.S_ISSOCK(os.fstat(number).st_mode):
                continue
            with socket.socket(fileno=os.dup(number)) as copy:
                if copy.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                    found.append(number)
        except OSError:  # the one of the directory
            continue
    return found


@linepool.handler
def pid() -> int:
    return os.getpid()


@linepool.handler
def harm(how: str) -> int:
    """Return how many listeners were harmed."""
    found = _listeners()
    for number in found:
        if how == "close":
            os.close(number)
        elif how == "replace":
            other, _ = os.pipe()
            os.dup2(other, number)
        elif how == "connect":
            other_socket, _ = socket.socketpair()
            os.dup2(other_socket.fileno(), number)
        elif how == "wake":
            os.set_blocking(number, False)
        else:
            with socket.socket(fileno=os.dup(number)) as copy:
                copy.shutdown(socket.SHUT_RDWR)
    return len(found)
