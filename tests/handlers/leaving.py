"""Handlers that start threads, register exit functions, and set context variables."""

from __future__ import annotations

import atexit
import contextvars
import os
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import common  # noqa: F401 - registers handlers

import linepool
from linepool import Session

user = contextvars.ContextVar("user", default="nobody")
directory = tempfile.TemporaryDirectory()
kept: list[object] = []


class Pool(ThreadPoolExecutor):
    """An executor that is shut down by nobody."""


def note(text: str) -> None:
    """Append a line to the journal."""
    with open(os.environ["JOURNAL"], "a") as journal:
        journal.write(f"{os.getpid()} {text}\n")


atexit.register(note, "registered before the fork")
weakref.finalize(Pool, note, "finalizer made before the fork")


@linepool.resource
def pool() -> Iterator[Pool]:
    """Keep an executor whose threads are idle."""
    pool = Pool(1, thread_name_prefix="idle")
    pool.submit(os.getpid).result()
    yield pool
    note("resource closed")


@linepool.on_worker_start
def start() -> None:
    """Set what all requests of this worker see."""
    user.set("worker")


@linepool.on_connect
def greet() -> None:
    """Set a context variable in a hook."""
    user.set("hook")


@linepool.middleware
def around(request: Any, session: Session, call: Callable[[Any], Any]) -> Any:
    """Set a context variable around one command."""
    if request.verb == b"IN_MIDDLEWARE":
        user.set("middleware")
    return call(request)


@linepool.handler
def in_middleware() -> str:
    """Return what the middleware has set."""
    return user.get()


@linepool.handler
def login(name: str) -> str:
    """Set a context variable."""
    user.set(name)
    return user.get()


@linepool.handler
def who() -> str:
    """Return the context variable."""
    return user.get()


@linepool.handler
def streamed(name: str) -> Iterator[str]:
    """Set a context variable in a stream, and return it in a later part."""
    user.set(name)
    yield user.get()
    yield user.get()


@linepool.handler
def later(gate: str) -> str:
    """Have a thread work on when the client has its reply; it ends with a byte from a FIFO."""

    def work() -> None:
        Path(gate).read_bytes()
        note("thread done")

    threading.Thread(target=work, name="bookkeeper").start()
    return "accepted"


@linepool.handler
def stuck() -> str:
    """Have a thread run without end."""
    threading.Thread(target=time.sleep, args=(1000,), name="endless").start()
    return "accepted"


@linepool.handler
def register() -> str:
    """Register an exit function and a finalizer, and keep a temporary directory; return its name."""
    atexit.register(note, "registered in the worker")
    atexit.register(int, "no number")
    weakref.finalize(Pool, note, "finalizer made in the worker")
    kept.append(own := tempfile.TemporaryDirectory())
    return own.name


@linepool.handler
def place() -> str:
    """Return the temporary directory that was made before the fork."""
    return directory.name
