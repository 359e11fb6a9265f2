"""Workers that get old and fat, and that may be slow to come and to go."""

from __future__ import annotations

import os
import sys
import time

import linepool

_fat: list[bytes] = []


@linepool.on_worker_start
def come() -> None:
    """Take as long as there is a file that says so."""
    while os.path.exists(f"{os.environ['SLOW']}.to-come"):
        time.sleep(0.01)


@linepool.on_worker_exit
def go() -> None:
    """Take as long as there is a file that says so."""
    if os.path.exists(f"{os.environ['SLOW']}.to-go"):
        print(os.getpid(), "does not go", file=sys.stderr, flush=True)
        while True:
            time.sleep(1000)


@linepool.handler
def pid() -> int:
    """Return the worker's pid."""
    return os.getpid()


@linepool.handler
def gain(mebibytes: int) -> int:
    """Use that much memory, for ever."""
    _fat.append(os.urandom(1024) * 1024 * mebibytes)
    return os.getpid()
