"""A process that the app's code has forked: it ends where that code would return to the server.

It is a copy of the worker or the loader, but neither its clients nor its master know it. In a worker,
wherever the app's code returns, ``depth`` is compared with what it was before;
``linepool/worker/forks.py`` counts it.
"""

from __future__ import annotations

import _thread
import atexit
import contextlib
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, NoReturn

log = logging.getLogger("linepool")

_MOMENT = 0.001  # seconds

depth = 0
"""How many forks by code of the app's lie between the worker and this process."""

is_forking = False
"""Whether Python's hooks around a fork run: what a signal handler raises then is lost."""


@contextlib.contextmanager
def contained() -> Iterator[None]:
    """Run code of the app's; a process that it forks ends where the block ends."""
    before = depth
    try:
        yield
    finally:
        if depth != before:
            end()


@contextlib.contextmanager
def contained_in_load() -> Iterator[None]:
    """Run code of the app's outside of workers; a process that it forks ends where the block ends."""
    before = os.getpid()
    try:
        yield
    finally:
        if os.getpid() != before:
            end()


def send_again(number: int) -> None:
    """Send this process a signal in a moment. May be called by: signal handlers."""
    _thread.start_new_thread(_send, (number,))  # without the locks of threading, which may be held


def _send(number: int) -> None:
    time.sleep(_MOMENT)
    os.kill(os.getpid(), number)


def end() -> NoReturn:
    """End this process as Python ends one, with the exception that is being handled, if there is one."""
    error = sys.exc_info()[1]
    status: Any = 0
    if isinstance(error, SystemExit):
        status = error.code
    elif error is not None:
        log.error("forked process failed pid=%d", os.getpid(), exc_info=error)
        status = 1
    if not isinstance(status, int | None):  # as sys.exit("text") does
        log.error("forked process failed pid=%d why=%r", os.getpid(), str(status))
        status = 1
    try:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()  # those that it has registered itself
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                with contextlib.suppress(OSError, ValueError):
                    stream.flush()
    finally:
        os._exit((status or 0) & 0xFF)
