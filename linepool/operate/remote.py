"""Client of the control socket: how the command line finds a server and sends it orders."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from typing import Any

from linepool.errors import SetupError
from linepool.operate.places import is_own_server, searched, sockets_in

TIMEOUT = 10.0
"""Seconds to wait for a reply that comes at once."""
_CONNECT_RETRY_S = 0.01
_MOST_BYTES = 4 * 1024 * 1024  # of a reply; the state of 1,000 workers takes 300 KB


def find(path: str | None) -> str:
    """Return the path of a server's control socket; None: that of the only running server.

    Raises:
        SetupError: No server is running, or several are; the message lists them.
    """
    if path is not None:
        return path
    directories = searched()
    paths = [path for where in directories for path in sockets_in(where)]
    alive = [path for path in paths if _is_alive(path)]
    if len(alive) == 1:
        return alive[0]
    if alive:
        shown = "".join(f"\n  --control {path}" for path in alive)
        raise SetupError(f"{len(alive)} servers running; choose one:{shown}")
    raise SetupError(
        f"no server is running (none of this user's has a control socket in {', '.join(directories)});"
        " give --control PATH"
    )


def _is_alive(path: str) -> bool:
    """Whether a server of this user listens on a control socket; remove the file of a dead server."""
    with socket.socket(socket.AF_UNIX) as sock:
        try:
            sock.setblocking(False)
            sock.connect(path)
            return is_own_server(sock)
        except BlockingIOError:  # its accept queue is full
            return True
        except ConnectionRefusedError:
            pid = os.path.basename(path).partition(".")[0]
            if not os.path.exists(f"/proc/{pid}"):  # else it may be about to listen
                with contextlib.suppress(OSError):
                    os.unlink(path)
            return False
        except OSError:
            return False


def _connect(sock: socket.socket, path: str, timeout: float) -> None:
    """Connect to a server; retry while its accept queue is full."""
    give_up_at = time.monotonic() + timeout
    sock.settimeout(timeout)
    while True:
        try:
            sock.connect(path)
        except BlockingIOError:  # raised at once, whatever the timeout (unix(7))
            if time.monotonic() >= give_up_at:
                raise
            time.sleep(_CONNECT_RETRY_S)
        else:
            return


def order(path: str, line: str, timeout: float = TIMEOUT) -> str:
    """Send one order and return its one-line reply, without the line ending.

    Args:
        path: Of the control socket.
        line: The order.
        timeout: Seconds to wait for the reply.

    Raises:
        SetupError: No server listens there, or it replies with an error; the message is that error.
    """
    try:
        with socket.socket(socket.AF_UNIX) as sock:
            _connect(sock, path, timeout)
            sock.sendall(line.encode() + b"\n")
            sock.shutdown(socket.SHUT_WR)
            with sock.makefile("rb") as stream:
                reply = stream.read(_MOST_BYTES).decode().partition("\n")[0]
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SetupError(f"cannot reach a server at {path}: {reason}") from None
    if not reply:
        raise SetupError(f"cannot reach a server at {path}: empty reply")
    kind, _, text = reply.partition(" ")
    if kind in ("ERROR", "CLIENT_ERROR", "SERVER_ERROR"):
        raise SetupError(text)
    return reply


def status(path: str, timeout: float = TIMEOUT) -> dict[str, Any]:
    """Return the state of a server; for the arguments, see ``order``.

    Raises:
        SetupError: As for ``order``.
    """
    state: dict[str, Any] = _json(path, "STATUS json", dict, timeout)
    return state


def stacks(path: str, how: str) -> list[dict[str, Any]]:
    """Return what each worker of a server does; ``how``: quiet, or signal.

    Raises:
        SetupError: As for ``order``.
    """
    rows: list[dict[str, Any]] = _json(path, f"STACKS json {how}", list, TIMEOUT)
    return rows


def _json(path: str, line: str, kind: type, timeout: float) -> Any:
    reply = order(path, line, timeout)
    with contextlib.suppress(ValueError, RecursionError):
        value = json.loads(reply)
        if isinstance(value, kind):
            return value
    raise SetupError(f"not a linepool server at {path}: reply {reply[:40]!r}")
