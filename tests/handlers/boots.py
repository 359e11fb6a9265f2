"""An app whose workers boot, exit or wait, as a file says."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import common  # noqa: F401 - registers its handlers

import linepool


@linepool.on_worker_start
def boot() -> None:
    """Do what the file says."""
    orders = Path(os.environ["BOOT"])
    match orders.read_text() if orders.exists() else "":
        case "raise":
            raise RuntimeError("no database")
        case "no descriptor":
            raise RuntimeError("no database") from OSError(errno.EMFILE, "Too many open files")
        case "exit":
            os._exit(3)
        case "kill":
            os.kill(os.getpid(), 9)
        case "wait":
            os.open(os.environ["BOOT"] + ".fifo", os.O_RDONLY)
        case "all but one wait":
            try:
                os.mkdir(os.environ["BOOT"] + ".first")
            except FileExistsError:
                os.open(os.environ["BOOT"] + ".fifo", os.O_RDONLY)
        case _:
            pass
