"""Client of the control socket: how the command line finds a server and sends it orders."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator, Sequence
from typing import Any

from linepool.errors import SetupError
from linepool.operate.places import is_own_server, searched, sockets_in

TIMEOUT = 10.0
"""Seconds to wait for a reply that comes at once."""
ERRORS = ("ERROR", "CLIENT_ERROR", "SERVER_ERROR")
"""The first words of replies that are errors."""
_CONNECT_RETRY_S = 0.01
_CHUNK = 256 * 1024  # bytes
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
            if not _exists(pid):  # else it may be about to listen
                with contextlib.suppress(OSError):
                    os.unlink(path)
            return False
        except OSError:
            return False


def _exists(pid: str) -> bool:
    """Whether there is a process with a number."""
    try:
        os.kill(int(pid), 0)
    except (ValueError, OverflowError, ProcessLookupError):
        return False
    except PermissionError:
        pass
    return True


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
    (reply,) = replies(path, [line], timeout)
    kind, _, text = reply.partition(" ")
    if kind in ERRORS:
        raise SetupError(text)
    return reply


def replies(path: str, lines: Sequence[str], timeout: float = TIMEOUT) -> list[str]:
    """Send orders on one connection, and return their replies, each of one line; they may be errors.

    Args:
        path: Of the control socket.
        lines: The orders.
        timeout: Seconds to wait for the replies.

    Raises:
        SetupError: No server listens there, or it does not reply to all.
    """
    try:
        with socket.socket(socket.AF_UNIX) as sock:
            give_up_at = time.monotonic() + timeout
            _connect(sock, path, timeout)
            sock.sendall("".join(f"{line}\n" for line in lines).encode())
            sock.shutdown(socket.SHUT_WR)
            found = _read_lines(sock, len(lines), give_up_at)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SetupError(f"cannot reach a server at {path}: {reason}") from None
    if len(found) < len(lines) or not all(found):
        raise SetupError(f"cannot reach a server at {path}: empty reply")
    return found


def _read_lines(sock: socket.socket, count: int, give_up_at: float) -> list[str]:
    """Return what has come when there are so many lines, too much, or the end.

    Raises:
        OSError: Among others, because the time is up, on the monotonic clock.
        UnicodeDecodeError: It is not text.
    """
    data = b""
    while data.count(b"\n") < count and len(data) < _MOST_BYTES:
        sock.settimeout(max(0.001, give_up_at - time.monotonic()))
        if time.monotonic() > give_up_at:
            raise TimeoutError("timed out")
        chunk = sock.recv(_CHUNK)
        if not chunk:
            break
        data += chunk
    return data.decode().split("\n")[:count]


def status(path: str, timeout: float = TIMEOUT) -> dict[str, Any]:
    """Return the state of a server; for the arguments, see ``order``.

    Raises:
        SetupError: As for ``order``.
    """
    state: dict[str, Any] = _json(path, "STATUS json", dict, timeout)
    return state


def stats(path: str, timeout: float = TIMEOUT) -> dict[str, Any]:
    """Return how often a server has served each command; arguments and errors as of ``status``."""
    found: dict[str, Any] = _json(path, "STATS json", dict, timeout)
    return found


def events(path: str, since: int = 0) -> list[dict[str, Any]]:
    """Return the last incidents of a server, or those that have changed; errors as of ``status``.

    Args:
        path: Of the control socket.
        since: The number of a change; 0: before all.
    """
    records: list[dict[str, Any]] = _json(path, f"EVENTS json {since}", list, TIMEOUT)
    return records


def stacks(path: str, how: str) -> list[dict[str, Any]]:
    """Return what each worker of a server does; ``how``: quiet, or signal.

    Raises:
        SetupError: As for ``order``.
    """
    rows: list[dict[str, Any]] = _json(path, f"STACKS json {how}", list, TIMEOUT)
    return rows


def stacks_and_state(path: str, how: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return what ``stacks`` and ``status`` return, asked on one connection; errors as of ``stacks``."""
    found = replies(path, [f"STACKS json {how}", "STATUS json"])
    for reply in found:
        kind, _, text = reply.partition(" ")
        if kind in ERRORS:
            raise SetupError(text)
    return parsed(path, found[0], list), parsed(path, found[1], dict)


def _json(path: str, line: str, kind: type, timeout: float) -> Any:
    return parsed(path, order(path, line, timeout), kind)


def parsed(path: str, reply: str, kind: type) -> Any:
    """Return what a reply says in JSON.

    Raises:
        SetupError: It is not JSON of that kind.
    """
    with contextlib.suppress(ValueError, RecursionError):
        value = json.loads(reply)
        if isinstance(value, kind):
            return value
    raise not_ours(path, reply)


@contextlib.contextmanager
def understood() -> Iterator[None]:
    """Have an error within the block, which shows a reply, say that the server may be another one.

    Raises:
        SetupError: The reply has not what the block takes from it.
    """
    try:
        yield
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise SetupError(
            f"the reply is not that of a linepool server of this version: {error!r}"
        ) from None


def not_ours(path: str, reply: str) -> SetupError:
    """Return the error about a reply that a server of linepool does not send."""
    return SetupError(f"not a linepool server at {path}: reply {reply[:40]!r}")
