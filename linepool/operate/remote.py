"""The other end of the control socket: how the command line finds a server and speaks to it."""

from __future__ import annotations

import json
import os
import socket
import time
from typing import Any

from linepool.errors import SetupError
from linepool.operate.control import directory

_TIMEOUT = 10.0  # seconds
_PAUSE = 0.01  # seconds


def find(path: str | None) -> str:
    """Return the path of a server's control socket; None: that of the only one that runs.

    Raises:
        SetupError: There is none, or there are several; the text lists them.
    """
    if path is not None:
        return path
    where = directory()
    found = sorted(os.listdir(where)) if os.path.isdir(where) else []
    paths = [os.path.join(where, name) for name in found if name.endswith(".sock")]
    alive = [path for path in paths if _is_alive(path)]
    if len(alive) == 1:
        return alive[0]
    if alive:
        shown = "".join(f"\n  --control {path}" for path in alive)
        raise SetupError(f"{len(alive)} servers run; say which:{shown}")
    raise SetupError(f"no server runs (no control socket in {where}); give --control PATH")


def _is_alive(path: str) -> bool:
    """Whether somebody listens there; the file of a dead server is removed."""
    with socket.socket(socket.AF_UNIX) as sock:
        try:
            sock.setblocking(False)
            sock.connect(path)
        except BlockingIOError:  # its queue is full
            return True
        except ConnectionRefusedError:
            os.unlink(path)
            return False
        except OSError:
            return False
        return True


def _connect(sock: socket.socket, path: str) -> None:
    """Connect to a server, also if its queue is full for a moment."""
    give_up_at = time.monotonic() + _TIMEOUT
    sock.settimeout(_TIMEOUT)
    while True:
        try:
            sock.connect(path)
        except BlockingIOError:  # at once, whatever the time limit (unix(7))
            if time.monotonic() >= give_up_at:
                raise
            time.sleep(_PAUSE)
        else:
            return


def order(path: str, line: str) -> str:
    """Send one order and return its one-line reply, without the line ending.

    Raises:
        SetupError: Nobody listens there, or the server refuses; the text is its own.
    """
    try:
        with socket.socket(socket.AF_UNIX) as sock:
            _connect(sock, path)
            sock.sendall(line.encode() + b"\n")
            sock.shutdown(socket.SHUT_WR)
            with sock.makefile("rb") as stream:
                reply = stream.read().decode().rstrip("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SetupError(f"no server answers at {path}: {reason}") from None
    if not reply:
        raise SetupError(f"no server answers at {path}: it said nothing")
    kind, _, text = reply.partition(" ")
    if kind in ("ERROR", "CLIENT_ERROR", "SERVER_ERROR"):
        raise SetupError(text)
    return reply


def status(path: str) -> dict[str, Any]:
    """Return the state of a server.

    Raises:
        SetupError: As for ``order``.
    """
    reply = order(path, "STATUS json")
    try:
        state: dict[str, Any] = json.loads(reply)
    except ValueError:
        raise SetupError(f"no linepool server answers at {path}: it said {reply[:40]!r}") from None
    return state
