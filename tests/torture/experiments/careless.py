"""Handlers that misuse the process that runs them; no other client may notice, and the server outlives it."""

from __future__ import annotations

import contextlib
import socket
import time
from pathlib import Path

from attrs import frozen

from tests.servers import ServerProcess
from tests.torture.experiments.account import Kill
from tests.torture.experiments.generator import Plan
from tests.torture.experiments.ground import APP, Ground

_BETWEEN = 20  # requests between two deeds


@frozen
class Deed:
    """What a handler does.

    Attributes:
        ends: Its worker cannot serve any more, and must be replaced.
        harms: What its worker holds is lost.
        lingers: Its worker serves others for a moment before it is replaced.
    """

    command: str
    ends: bool = False
    harms: bool = False
    lingers: bool = False


_DEEDS = (
    Deed("CLOSE_RANGE", ends=True, harms=True),
    Deed("WRITE_TO_PIPES 1", ends=True, harms=True, lingers=True),
    Deed("FORK_AND_SLEEP"),
    Deed("FORK_AND_RETURN"),
    Deed("IGNORE_SIGNALS"),
    Deed("SET_ALARM", ends=True, harms=True),
    Deed("CHANGE_PROCESS"),
)
_MORE = (
    Deed("WRITE_TO_SOCKETS 1", harms=True, lingers=True),
    Deed("CLOSE_CLIENTS", harms=True),
    Deed("REPLACE_STANDARD"),
    Deed("FORK_AND_RAISE"),
    Deed("RESET_SIGNALS"),
    Deed("BLOCK_SIGNALS"),
    Deed("LOWER_LIMITS"),
    Deed("LEAVE_THREADS"),
    Deed("CLOSE_OUTPUT"),
    Deed("EXIT_NOW", harms=True),
)


def careless_handlers(ground: Ground) -> None:
    """T18: handlers close descriptors, fork, change signals, write where they must not."""
    deeds = _DEEDS if ground.size.name == "small" else (*_DEEDS, *_MORE) * ground.size.factor * 3
    load = ground.load()
    server = ground.serve(
        *("--graceful-timeout", "3"),
        target=APP.with_name("careless_app.py"),
        environment={"JOURNAL_BY_NAME": "1"},
        warm=False,  # so that the environment, which names the directory, is that of its processes
    )
    load.start(Plan(address=server.address, clients=4, seed=ground.report.seed))
    ground.await_requests(_BETWEEN)
    parker = server.status()["processes"]["parker"]
    with ground.parked(server, 10):
        for deed in deeds:
            _do(ground, server, deed)
            ground.await_requests(_BETWEEN)
        ground.until_whole(server, 0)
        changed = int(server.status()["processes"]["parker"] != parker)
        _replace_all(ground, server)
    ground.account(load.finish())
    report = ground.report
    report.check("masters that ended", int(server.process.poll() is not None))
    report.check("parkers that ended", changed)
    report.check("stops with an error", int(server.stop() != 0))
    report.check("ports that are held after the stop", int(not _is_free(server.port)))
    with contextlib.suppress(AssertionError):  # the check says it
        ground.until(lambda: not _left(ground), "no process is left")
    report.check("processes that are left after the stop", len(_left(ground)))
    report.details += [Path(f"/proc/{pid}/status").read_text() for pid in _left(ground)]
    report.kills = len(deeds)


def _do(ground: Ground, server: ServerProcess, deed: Deed) -> None:
    """Send a command, and wait until its worker has been replaced, if it must be.

    In the scheme dispatch a worker holds one connection, that of this request, so no other may be lost.
    """
    began = time.monotonic()
    spawned = server.status()["counters"]["spawned"]
    with contextlib.suppress(OSError), server.connect() as peer:
        peer.send(f"{deed.command}\nQUIT\n".encode())
        peer.rest()
    if deed.ends:
        ground.until_whole(server, spawned + 1)
    if deed.harms and (deed.lingers or ground.scheme != "dispatch"):
        ground.kills.append(Kill(0, began, None, time.monotonic()))


def _replace_all(ground: Ground, server: ServerProcess) -> None:
    """Reload; each worker leaves then, whatever its handlers have done to it."""
    old = set(server.pids())
    server.order("RELOAD")
    ground.until(lambda: not old & set(server.pids()), "the workers have left")
    ground.await_requests(_BETWEEN)


def _is_free(port: int) -> bool:
    with socket.socket() as sock, contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", port))
        return True
    return False


def _left(ground: Ground) -> list[int]:
    """Return the processes that have the environment of the server."""
    mark = f"JOURNALS={ground.journals}".encode()
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if mark in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
    return found
