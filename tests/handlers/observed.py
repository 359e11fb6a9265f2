"""Hooks of the server as a whole, which record in a journal what they are given."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import time
from pathlib import Path

import attrs

import linepool

DIRECTORY = Path(os.environ["JOURNAL"]).parent


def note(event: str, facts: object = None) -> None:
    """Append a line to the journal, with one system call."""
    journal = os.open(os.environ["JOURNAL"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(journal, (json.dumps([event, os.getpid(), facts]) + "\n").encode())
    os.close(journal)


if (DIRECTORY / "broken").exists():
    raise RuntimeError("broken")


@linepool.when_ready
def ready(ready: linepool.ServerReady) -> None:
    """Record the start."""
    note("ready", attrs.asdict(ready))


@linepool.on_reload
def reloaded(end: linepool.ReloadEnd) -> None:
    """Record the end of a reload."""
    note("reload", attrs.asdict(end))


@linepool.on_worker_end
def misbehave(end: linepool.WorkerEnd) -> None:
    """Fail, hang, die or fork, if the test says so."""
    path = DIRECTORY / "misbehave"
    how = path.read_text() if path.exists() else ""
    if not how:
        return
    path.write_text("")
    if how == "fail":
        raise RuntimeError("the pager is broken")
    if how == "hang":
        note("hangs")
        time.sleep(1000)
    if how == "die":
        ctypes.string_at(0)
    if how == "fork":
        os.fork()


@linepool.on_worker_end
def ended(end: linepool.WorkerEnd) -> None:
    """Record the end of a worker."""
    note("end", attrs.asdict(end))


@linepool.on_stop
def stop() -> None:
    """Record the end of the server."""
    note("stop")


@linepool.handler
def crash() -> str:
    """End the worker by a signal."""
    ctypes.string_at(0)
    return ""


@linepool.handler
def leave() -> str:
    """End the worker."""
    os._exit(3)


@linepool.handler(timeout=0.05)
def hang() -> str:
    """Ignore the time limit."""
    while True:
        with contextlib.suppress(linepool.RequestTimeout):
            time.sleep(1000)


@linepool.handler
def pid() -> str:
    """Return the worker's pid."""
    return str(os.getpid())
