"""An app whose workers do not come up as long as a file is there."""

from __future__ import annotations

import os
import sys
import time

import linepool


@linepool.on_worker_start
def boot() -> None:
    """Wait for ever, or fail, or come up: as the file says that is there or not."""
    path = os.environ["BOOT"]
    if os.path.exists(path):
        with open(path, encoding="ascii") as file:
            if file.read() == "fail":
                raise RuntimeError("no database")
        print(os.getpid(), "waiting for ever", file=sys.stderr, flush=True)
        time.sleep(1000)


@linepool.handler
def pid() -> int:
    """Return the worker's pid."""
    return os.getpid()


@linepool.handler
def nap(seconds: float) -> str:
    """Be slow."""
    time.sleep(seconds)
    return "awake"
