"""The deadline that a client gives a request. Runs in workers."""

from __future__ import annotations

import copy
import socket
from time import monotonic_ns
from typing import Any, NoReturn

from linepool.errors import DeadlineError
from linepool.kernel.sockets import waited_ns
from linepool.protocols.base import Request


def client_limit_ns(request: Request, limit_ns: int, sock: socket.socket, turn_ns: int) -> int:
    """Return the limit of a request whose client says how long it waits, in ns.

    That counts from when the bytes have arrived, in the kernel too. If nothing is left, the request gets a
    command that refuses it.

    Args:
        request: It has a command, unless that is unknown.
        limit_ns: Its limit without the client; 0: none.
        sock: The client's.
        turn_ns: When the turn began in which the request is served, on the monotonic clock.
    """
    now_ns = monotonic_ns()
    arrived_ns = min(turn_ns, now_ns - (waited_ns(sock) or 0))
    left_ns = request.most_ns - (now_ns - arrived_ns)
    if left_ns <= 0:
        if request.command is not None:
            request.command = copy.copy(request.command)
            request.command.call = _refuse
        return limit_ns
    return min(left_ns, limit_ns or left_ns)


def _refuse(_request: Request, _conversation: Any) -> NoReturn:
    raise DeadlineError("the client's deadline has passed; the request was not run")
