"""Lines that other programs may wait for on standard error."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

log = logging.getLogger("linepool")


@runtime_checkable
class Announcer(Protocol):
    """A logger that writes such lines in its own form."""

    def announce(self, text: str, event: str, facts: Mapping[str, Any]) -> None:
        """Write a line."""


def announce(text: str, event: str, **facts: object) -> None:
    """Write a line to standard error, whatever the log's level or file; to a log file too.

    Args:
        text: The line: plain, unless the log's form is JSON.
        event: Its name, in JSON.
        facts: What it says, in JSON.
    """
    if isinstance(log, Announcer):
        log.announce(text, event, facts)
        return
    with contextlib.suppress(OSError):
        os.write(2, text.encode() + b"\n")
