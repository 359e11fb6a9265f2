"""The way back for a program that is to take over a server and fails before it can try to.

It imports nothing of linepool's: whatever else is wrong with that, this works. Nothing that the program has
inherited is touched before, so the program that was there before can have all of it.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any

VARIABLE = "LINEPOOL_TAKEOVER"
"""Tells a program that it is to take over, or to try that: JSON with the descriptor of the state ..."""


def with_way_back(main: Callable[[], int]) -> int:
    """Run a program; if it ends without a try to take over, become the one that was there before.

    Args:
        main: The program; returns its exit status. It removes the variable when it tries to take over.
    """
    told = _told()
    try:
        status = main()
    except BaseException as error:
        if told is not None and VARIABLE in os.environ:
            import traceback  # noqa: PLC0415 - commands need it late or never

            traceback.print_exc()
            _go_back(told, f"{type(error).__name__}: {error}")
        raise
    if told is not None and VARIABLE in os.environ:
        _go_back(told, f"it has ended with the exit status {status}")
    return status


def _told() -> dict[str, Any] | None:
    """Return what this program is told; None: it is only to try, or is the one that was there before."""
    try:
        told: dict[str, Any] = json.loads(os.environ[VARIABLE])
        is_master = told["master"] == os.getpid()
    except (KeyError, TypeError, ValueError):
        return None
    return told if is_master and not (told.get("dry") or told.get("failure")) else None


def _go_back(told: dict[str, Any], why: str) -> None:
    """Become the program that was there before; return if that cannot be."""
    failure = f"the new program could not take over: {why}"
    print(f"linepool: {failure}", file=sys.stderr, flush=True)
    try:
        size = os.fstat(told["state"]).st_size
        program = json.loads(os.pread(told["state"], size, 0))["programs"]["resolved"]
        os.chdir(program["directory"])
        variable = json.dumps({**told, "failure": failure})
        environment = {**program["environment"], VARIABLE: variable}
        os.execve(program["arguments"][0], program["arguments"], environment)  # noqa: S606 - as it was
    except (OSError, KeyError, TypeError, ValueError) as error:
        print(f"linepool: the old program cannot be started: {error!r}", file=sys.stderr)
