"""The orderly end of a worker: as Python ends a process, but within a time.

Runs in workers, and in the processes that their code forks. A worker ends with ``os._exit``, because the
master's frames are below it; so what the interpreter would do at its end is done here: threads are
joined, then exit functions run. What is cut because the time is up, the log says.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import sys
import threading
import time
import weakref
from pathlib import Path
from typing import Any

from linepool.errors import LeaveNow

log = logging.getLogger("linepool")

_QUIETLY = 0.1  # seconds to wait for threads before the log says so


def own_exit_functions() -> None:
    """Forget the exit functions and child processes of the process that this one was forked from.

    They are its own business: a temporary directory that it removes at its end is still in use then.
    """
    atexit._clear()  # there is no public way
    atexit.register(logging.shutdown)
    finalize: Any = weakref.finalize
    for finalizer in finalize._registry.values():
        finalizer.atexit = False
    finalize._registered_with_atexit = False  # the next one that is made does it
    if (process := sys.modules.get("multiprocessing.process")) is not None:
        process._children = set()  # type: ignore[attr-defined]
    if (util := sys.modules.get("multiprocessing.util")) is not None:
        atexit.register(util._exit_function)


def finish(until: float) -> None:
    """Do what Python does at the end of a process, until a moment on the monotonic clock.

    An order to leave at once ends the waits. The master ends what is left in the worker's process group.
    """
    until = _join_threads(until)
    _join_children(until)
    atexit._run_exitfuncs()  # what they raise is printed
    _save_coverage()
    if left := _children_in_group():
        log.warning("processes left by a worker are killed pid=%d children=%s", os.getpid(), left)


def _join(one: Any, until: float) -> float:
    """Wait for a thread or process; return until when to wait for others; 0.0: do not wait for them."""
    try:
        one.join(max(0.0, until - time.monotonic()))
    except LeaveNow:
        return 0.0
    return until


def _join_threads(until: float) -> float:
    # In a thread, because the wait has no limit of its own. It also ends idle executors.
    shutdown = threading._shutdown  # type: ignore[attr-defined]
    joiner = threading.Thread(target=shutdown, name="linepool-exit", daemon=True)
    try:
        joiner.start()
    except RuntimeError as error:  # too many threads, or no memory
        log.warning("threads not joined pid=%d why=%r", os.getpid(), str(error))
        return until
    _join(joiner, time.monotonic() + _QUIETLY)
    if joiner.is_alive() and time.monotonic() < until:
        log.info("waiting for threads before the exit pid=%d threads=%s", os.getpid(), _threads())
        until = _join(joiner, until)
    if joiner.is_alive() and (threads := _threads()):
        log.warning("threads cut off by the exit pid=%d threads=%s", os.getpid(), threads)
    return until


def _threads() -> str:
    """Return the names of the threads that Python waits for at the end of a process."""
    main = threading.main_thread()
    waited_for = [one.name for one in threading.enumerate() if not one.daemon and one is not main]
    return ",".join(waited_for)


def _join_children(until: float) -> None:
    """End the daemonic children of multiprocessing, and wait for the others."""
    processes = sys.modules.get("multiprocessing.process")
    util = sys.modules.get("multiprocessing.util")
    if processes is None or util is None:
        return
    util._run_finalizers(0)  # of pools, which would replace their children
    children = processes.active_children()
    for child in children:
        if child.daemon:
            child.terminate()
    for child in children:
        until = _join(child, until)
    cut = [child for child in children if child.is_alive()]
    if cut:
        names = ",".join(child.name for child in cut)
        log.warning("child processes killed at the exit pid=%d children=%s", os.getpid(), names)
    for child in cut:
        child.kill()
        child.join()


def _save_coverage() -> None:
    """Save what coverage.py has measured; it counts on the exit functions of the process it began in."""
    coverage = sys.modules.get("coverage")
    current = coverage.Coverage.current() if coverage is not None else None
    if current is not None:
        try:
            current.stop()
            current.save()
        except Exception:
            log.exception("coverage data not saved pid=%d", os.getpid())


def _children_in_group() -> str:
    """Return the pids of child processes that end with this one, but for multiprocessing's helpers."""
    helpers = {_pid_of("resource_tracker", "_pid"), _pid_of("forkserver", "_forkserver_pid")}
    found = []
    with contextlib.suppress(OSError):  # the kernel can be built without these files
        for task in Path("/proc/self/task").iterdir():
            for pid in map(int, (task / "children").read_text().split()):
                with contextlib.suppress(ProcessLookupError):
                    if (
                        pid not in helpers
                        and os.getpgid(pid) == os.getpid()
                        and not _is_zombie(pid)
                    ):
                        found.append(str(pid))
    return ",".join(found)


def _pid_of(module: str, attribute: str) -> object:
    found = sys.modules.get(f"multiprocessing.{module}")
    return getattr(getattr(found, f"_{module}", None), attribute, None)


def _is_zombie(pid: int) -> bool:
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
