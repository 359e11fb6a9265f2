"""Faults, one for each command, and one at the start of a worker if FAULT says so."""

import os
import signal
import time

import linepool


@linepool.on_worker_start
def start() -> None:
    """Fail in every worker but the first one."""
    if os.environ.get("FAULT") == "boot":
        try:
            os.close(os.open("started", os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            raise RuntimeError("no database") from None


@linepool.handler
def fail(text: str = "") -> None:
    """Raise an exception."""
    raise ValueError(text)


@linepool.handler
def die() -> None:
    """End the worker."""
    os.kill(os.getpid(), signal.SIGKILL)


@linepool.handler
def hang() -> None:
    """Run until the worker is killed."""
    while True:
        try:
            time.sleep(60)
        except linepool.RequestTimeout:
            continue
