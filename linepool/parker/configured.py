"""What the master tells the parker of another generation. Runs in the parker."""

from __future__ import annotations

import json
import logging
import os
from typing import Protocol, runtime_checkable

from linepool.facts import AppFacts
from linepool.ipc.letters import unpacked
from linepool.kernel.listeners import Listener
from linepool.settings import Settings, from_texts

log = logging.getLogger("linepool")


@runtime_checkable
class _Follower(Protocol):
    """A logger that follows the settings of the log, as that of a server does."""

    def configure(self, settings: Settings) -> None:
        """Follow them."""


def configured(file: int, descriptors: list[int]) -> tuple[AppFacts, Settings, list[Listener]]:
    """Return what is known of the app, the settings, and the listeners that are new; the log follows them.

    Args:
        file: A descriptor of the file with the facts; it is closed.
        descriptors: Those of the listeners, which these own.
    """
    try:
        data = json.loads(os.pread(file, os.fstat(file).st_size, 0))
    finally:
        os.close(file)
    parts = unpacked(data["listeners"], descriptors)
    listeners = [Listener.taken_over(*part) for part in parts.values()]
    settings = from_texts(data["settings"])
    if isinstance(log, _Follower):
        log.configure(settings)
    return AppFacts.from_json(data["app"]), settings, listeners
