"""Apps that do odd things to their process: a breakpoint, native threads, closed standard descriptors."""

from __future__ import annotations

import _thread
import os
import pdb
import sys
import time
import types

import common  # noqa: F401 - registers handlers

import linepool

ODD = os.environ.get("ODD", "")

if ODD == "native thread":
    _thread.start_new_thread(time.sleep, (1000,))
if ODD == "gevent":
    # What linepool asks of it; the real one is not needed to refuse it.
    patch = types.ModuleType("gevent.monkey")
    patch.is_module_patched = lambda name: name in {"socket", "select"}  # type: ignore[attr-defined]
    sys.modules["gevent.monkey"] = patch
if ODD == "closed early":
    os.close(0)


@linepool.on_worker_start
def start() -> None:
    """Close standard descriptors in the worker."""
    if ODD == "closed in a hook":
        os.closerange(0, 2)


@linepool.handler
def close_standard() -> str:
    """Close standard input, output and error."""
    os.closerange(0, 3)
    return "closed"


@linepool.handler
def standard() -> str:
    """Return what the standard descriptors are."""
    kinds = []
    for number in range(3):
        try:
            kinds.append(os.readlink(f"/proc/self/fd/{number}").partition(":")[0])
        except OSError:
            kinds.append("closed")
    return " ".join(kinds)


@linepool.handler
def complain() -> str:
    """Write to standard error, as a library of C does."""
    try:
        os.write(2, b"noise\n")
    except OSError as error:
        return type(error).__name__
    return "written"


@linepool.handler
def stop_here(a: int, b: int) -> int:
    """Add two numbers, with the debugger."""
    breakpoint()
    return a + b


@linepool.handler
def trace(a: int, b: int) -> int:
    """Add two numbers, with pdb and no other debugger."""
    pdb.set_trace()
    return a + b
