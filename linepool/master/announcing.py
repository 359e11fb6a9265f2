"""Lines that other programs may wait for on standard error."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from linepool.kernel.listeners import Listener
from linepool.settings import Settings

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


def announce_listeners(listeners: Sequence[Listener], settings: Settings) -> None:
    """Write a line for each address that is listened on; with its app, if listeners have tables."""
    for listener in listeners:
        table = settings.table_of(listener.key)
        facts = {"app": table.app, "name": table.name} if table else {}
        facts = {name: text for name, text in facts.items() if text}
        more = "".join(f" {name}={text}" for name, text in facts.items())
        for address in listener.names:
            announce(f"listening on {address}{more}", "listening", address=address, **facts)
