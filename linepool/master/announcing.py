"""Lines that other programs may wait for on standard error."""

from __future__ import annotations

import contextlib
import logging
import os

log = logging.getLogger("linepool")


def announce(line: str) -> None:
    """Write a line to standard error, plain, whatever the log's form, level or file; to a log file too."""
    with contextlib.suppress(OSError):
        os.write(2, line.encode() + b"\n")
    log.info("%s", line, extra={"announced": True})
