"""What is looked at before the first fork: threads, and patches of Python that rule out a server."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
from collections import Counter
from pathlib import Path

from linepool.errors import SetupError

log = logging.getLogger("linepool")

_PARTS = ("os", "select", "signal", "socket", "thread", "threading", "time")


def refuse_patches() -> None:
    """Refuse to serve with Python's modules replaced by those of a library for coroutines.

    Raises:
        SetupError: They are.
    """
    gevent, eventlet = sys.modules.get("gevent.monkey"), sys.modules.get("eventlet.patcher")
    for name, is_patched in (
        ("gevent", getattr(gevent, "is_module_patched", None)),
        ("eventlet", getattr(eventlet, "is_monkey_patched", None)),
    ):
        patched = [part for part in _PARTS if is_patched is not None and is_patched(part)]
        if patched:
            raise SetupError(
                f"{name} has replaced parts of Python ({', '.join(patched)}), and linepool's processes"
                " cannot run with these: remove the monkey patch; workers are processes, so a handler may"
                " simply block"
            )


def warn_of_threads() -> None:
    """Warn of threads that the app has started: a fork copies the locks they hold, not them."""
    threads = threading.enumerate()
    names = [thread.name for thread in threads if thread is not threading.main_thread()]
    # After a fork, Python 3.11 gives the main thread the number that it had in the parent.
    names += _native_threads({os.getpid(), *(thread.native_id for thread in threads)})
    if names:
        log.warning(
            "the app runs threads before the fork (%s); workers may hang on their locks;"
            " start them, or import what starts them, in on_worker_start",
            ", ".join(names),
        )


def _native_threads(known: set[int | None]) -> list[str]:
    """Return the names that the kernel has for the threads that Python does not list, with their number."""
    names: Counter[str] = Counter()
    with contextlib.suppress(OSError):  # /proc is not mounted
        for task in Path("/proc/self/task").iterdir():
            if int(task.name) not in known:
                with contextlib.suppress(OSError):  # it has ended
                    names[(task / "comm").read_text().strip()] += 1
    return [f"{name}, {count} native" for name, count in names.items()]
