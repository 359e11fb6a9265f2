"""Handlers that say as which user they run."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

import linepool

_KEPT = ("Uid", "Gid", "Groups", "NoNewPrivs", "CapEff")
_AT_LOAD = os.getuid()


@linepool.handler
def identity() -> list[str]:
    """Say what the kernel knows of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return [" ".join(line.split()) for line in lines if line.partition(":")[0] in _KEPT]


@linepool.handler
def loaded_by() -> int:
    """Say which user has loaded this file."""
    return _AT_LOAD


@linepool.handler
def become_root() -> str:
    """Try to become root."""
    try:
        os.setuid(0)
    except PermissionError:
        return "refused"
    return "root"


@linepool.handler
def place() -> str:
    """Say where this process is, and as whom it believes to be."""
    umask = os.umask(0)
    os.umask(umask)
    return f"{os.getcwd()} {umask:03o} {os.environ['HOME']} {os.environ['USER']}"


@linepool.handler
def hang() -> None:
    """Do not end."""
    while True:
        with contextlib.suppress(linepool.RequestTimeout):
            time.sleep(100)
