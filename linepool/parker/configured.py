"""What the master tells the parker of another generation. Runs in the parker."""

from __future__ import annotations

import json
import os

from linepool.facts import AppFacts
from linepool.ipc.letters import unpacked
from linepool.kernel.listeners import Listener
from linepool.settings import Settings, from_texts


def configured(file: int, descriptors: list[int]) -> tuple[AppFacts, Settings, list[Listener]]:
    """Return what is known of the app, the settings, and the listeners that are new.

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
    return AppFacts.from_json(data["app"]), from_texts(data["settings"]), listeners
