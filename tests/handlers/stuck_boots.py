"""An app whose workers do not become ready while a file exists."""

from __future__ import annotations

import os
import sys
import time

import common  # noqa: F401 - registers its handlers

import linepool


@linepool.on_worker_start
def boot() -> None:
    """If the file exists, fail if it contains "fail"; otherwise hang."""
    path = os.environ["BOOT"]
    if os.path.exists(path):
        with open(path, encoding="ascii") as file:
            if file.read() == "fail":
                raise RuntimeError("no database")
        print(os.getpid(), "hangs in its boot", file=sys.stderr, flush=True)
        time.sleep(1000)
