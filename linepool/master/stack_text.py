"""The text of a worker's stacks, as faulthandler or the worker's second thread writes it.

Used by the master. Each thread is a paragraph, the main thread the last one; the most recent call is first.
"""

from __future__ import annotations

import os

from linepool import app, app_hooks, batch, conversation, resources, service
from linepool.handlers.compile import CALL_FILE
from linepool.loader import observer
from linepool.worker import evacuation, worker

# What calls handlers and hooks.
_SERVER_FILES = (
    *(app.__file__, batch.__file__, conversation.__file__),
    *(resources.__file__, service.__file__),
)
_WORKER_CODE = os.path.dirname(worker.__file__) + os.sep
_NONE = " stack=none (the process is stopped, or blocks the signal)"


def of_main_thread(stacks: str) -> list[str]:
    """Return the lines of the main thread's calls."""
    lines = stacks.partition("Current thread")[2].splitlines()[1:]
    end = next((at for at, line in enumerate(lines) if not line.startswith("  ")), len(lines))
    return without_server(lines[:end])


def of_handler(stacks: str) -> str:
    """Return all stacks but that of the second thread, as lines below the event that they belong to."""
    if not stacks:
        return _NONE
    theirs = [thread for thread in stacks.split("\n\n") if evacuation.__file__ not in thread]
    lines = without_server("\n\n".join(theirs).splitlines())
    return "".join(f"\n    {line}" for line in lines)


def of_hook(stacks: str) -> str:
    """Return the stacks of an observer, the main thread without what is below the hook."""
    if not stacks:
        return _NONE
    lines = stacks.splitlines()
    base = next((at for at, line in enumerate(lines) if _is_observers(line)), None)
    return "".join(f"\n    {line}" for line in lines[:base])


def without_server(lines: list[str]) -> list[str]:
    """Return a stack without what is below a handler, or below the worker's own code if no handler runs."""
    called = next((at for at, line in enumerate(lines) if CALL_FILE in line), None)
    base = next((at for at, line in enumerate(lines) if worker.__file__ in line), None)
    if called or base is None:
        return lines[:called]
    end = base
    while end and _is_server(lines[end - 1]):
        end -= 1
    is_idle = not end or not lines[end - 1].startswith("  ")
    return lines[: base + 1] if is_idle else lines[:end]


def _is_server(line: str) -> bool:
    return _WORKER_CODE in line or any(file in line for file in _SERVER_FILES)


def _is_observers(line: str) -> bool:
    return observer.__file__ in line or app_hooks.__file__ in line
