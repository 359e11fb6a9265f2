"""The state of the server, for handlers: what ``linepool status`` and ``linepool stats`` print of it."""

from __future__ import annotations

import os
from typing import Any

from linepool import this_server
from linepool.errors import SetupError
from linepool.operate import remote
from linepool.operate.places import searched


def server_status(timeout: float = 1.0) -> dict[str, Any]:
    """Return the state of the server that this process is a worker of, as ``linepool status --json``.

    The master is asked over the control socket, which takes about a millisecond. So this is for commands
    that report, not for each request.

    Args:
        timeout: Seconds to wait for the master.

    Raises:
        SetupError: This process is not a worker, the server has no control socket or one that this user may
            not use, or the master does not answer.
    """
    return remote.status(_path(), timeout)


def server_stats(timeout: float = 1.0) -> dict[str, Any]:
    """Return the figures of each command, of all workers, as ``linepool stats --json``.

    Arguments and errors are those of ``server_status``.
    """
    return remote.stats(_path(), timeout)


def _path() -> str:
    control = this_server.control
    if not control:
        raise SetupError("this process is not a worker of a server")
    if control == "off":
        raise SetupError("the server has no control socket (control is off)")
    if control != "auto":
        return control
    paths = [os.path.join(where, f"{this_server.master}.sock") for where in searched()]
    for path in paths:
        if os.path.exists(path):
            return path
    raise SetupError(f"the server has no control socket in {', '.join(searched())}")
