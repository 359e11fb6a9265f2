"""Workers that use much memory, and that may be slow to boot and to exit."""

from __future__ import annotations

import os
import sys
import time

import common  # noqa: F401 - registers its handlers

import linepool

_used: list[bytes] = []


@linepool.on_worker_start
def boot() -> None:
    """Wait while the file for it exists."""
    while os.path.exists(f"{os.environ['SLOW']}.to-boot"):
        time.sleep(0.01)


@linepool.on_worker_exit
def leave() -> None:
    """Hang if the file for it exists."""
    if os.path.exists(f"{os.environ['SLOW']}.to-exit"):
        print(os.getpid(), "does not exit", file=sys.stderr, flush=True)
        while True:
            time.sleep(1000)


@linepool.handler
def use(mebibytes: int) -> int:
    """Use that much memory from now on."""
    _used.append(os.urandom(1024) * 1024 * mebibytes)
    return os.getpid()
