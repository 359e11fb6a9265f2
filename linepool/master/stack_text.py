"""The text of a worker's stacks, as faulthandler or the worker's second thread writes it.

Used by the master. Each thread is a paragraph, the main thread the last one; the most recent call is first.
"""

from __future__ import annotations

import os
import re
import signal

from linepool import app, app_hooks, batch, conversation, resources, service
from linepool.handlers.compile import CALL_FILE
from linepool.loader import observer
from linepool.protocols import base as protocol
from linepool.worker import evacuation, worker

# What calls handlers and hooks.
_SERVER_FILES = (
    *(app.__file__, batch.__file__, conversation.__file__),
    *(resources.__file__, service.__file__),
)
_SERVER_CODE = (
    os.path.dirname(worker.__file__) + os.sep,
    os.path.dirname(protocol.__file__) + os.sep,
)
_FRAME = re.compile(r'  File "(.*)", line (\d+|\?\?\?) in (.*)')
# What faulthandler writes before the stacks when one of these signals ends the process, and after them.
_CRASH = "Fatal Python error: "
_CRASHES = {
    signal.SIGSEGV: "Segmentation fault",
    signal.SIGABRT: "Aborted",
    signal.SIGBUS: "Bus error",
    signal.SIGFPE: "Floating",
    signal.SIGILL: "Illegal instruction",
}
_EXTENSIONS = "\nExtension modules: "
_NONE = " stack=none (the process is stopped, or blocks the signal)"


Call = tuple[str, int, str]
"""A call in a stack: the file, the number of the line (0: not known), and the function."""


def calls_of(lines: list[str]) -> list[Call]:
    """Return the calls in some lines."""
    found = [_FRAME.fullmatch(line) for line in lines]
    return [
        (frame[1], int(frame[2]) if frame[2].isdecimal() else 0, frame[3])
        for frame in found
        if frame
    ]


def without_servers_calls(calls: list[Call]) -> list[Call]:
    """Return calls without those of the server below the handler; all, if there are no others."""
    end = len(calls)
    while end and _is_server(calls[end - 1][0]):
        end -= 1
    return calls[: end or None]


def of_crash(text: str, status: int) -> str:
    """Return the stacks that faulthandler has written at the end of a process; "": it has not.

    Args:
        text: All that was written; stacks that were asked for before may be in it.
        status: Minus the signal that has ended the process, or its exit status.
    """
    name = next((name for number, name in _CRASHES.items() if number == -status), None)
    _, begin, stacks = text.rpartition(_CRASH)
    if not (begin and name and stacks.startswith(name)):
        return ""
    return stacks.partition(_EXTENSIONS)[0].partition("\n\n")[2]


def of_main_thread(stacks: str) -> list[str]:
    """Return the lines of the calls of the main thread, or of the one that has crashed."""
    lines = stacks.partition("Current thread")[2].splitlines()[1:]
    end = next((at for at, line in enumerate(lines) if not line.startswith("  ")), len(lines))
    return without_server(lines[:end])


def of_handler(stacks: str) -> str:
    """Return the stacks of a worker as ``below``, or that there are none."""
    return below(stacks) if stacks else _NONE


def below(stacks: str) -> str:
    """Return all stacks but that of the second thread, as lines below the event that they belong to."""
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
    return any(place in line for place in (*_SERVER_CODE, *_SERVER_FILES))


def _is_observers(line: str) -> bool:
    return observer.__file__ in line or app_hooks.__file__ in line
