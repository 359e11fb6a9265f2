"""``linepool status --watch``: the state of a server again and again. Light, as ``tables``."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

from linepool.errors import SetupError
from linepool.operate import remote
from linepool.operate.looking import Looking, lasting
from linepool.operate.screen import Ended, Screen, is_screen
from linepool.operate.shown import state_as_lines
from linepool.operate.shown_at_terminal import clean, state_at_terminal
from linepool.operate.terminal import printable


class _Asker:
    """Asks a server for its state; one that was started anew may have another path."""

    def __init__(self, find: Callable[[], str]) -> None:
        self._find = find
        self._path = ""

    def state(self) -> dict[str, Any]:
        path = self._path or self._find()
        try:
            found = remote.status(path)
        except SetupError:
            self._path = ""
            raise
        self._path = path
        return found


def watch(find: Callable[[], str], interval: float, *, as_json: bool) -> int:
    """Show the state until a key or a signal ends that; return the exit status.

    Args:
        find: Returns the path of the control socket.
        interval: Seconds between two looks.
        as_json: Print an object on one line for each look.

    Raises:
        SetupError: There is no server at the beginning.
    """
    asker = _Asker(find)
    first = asker.state()
    if as_json or not is_screen():
        _print(first, as_json=as_json)
        for state in lasting(asker.state, interval, interval):
            _print(state, as_json=as_json)
    else:
        try:
            _on_screen(asker, first, interval)
        except Ended as end:
            return end.status
    return 0


def _print(state: dict[str, Any], *, as_json: bool) -> None:
    lines = [json.dumps(state)] if as_json else [*state_as_lines(state), ""]
    print(printable(lines, sys.stdout), flush=True)


def _on_screen(asker: _Asker, state: dict[str, Any], interval: float) -> None:
    trouble = ""
    with Screen() as screen, Looking(asker.state, interval, screen.wake, interval) as looking:
        while True:
            for found in looking.found():
                if isinstance(found, dict):
                    state, trouble = found, ""
                elif isinstance(found, SetupError):
                    trouble = f"no answer, trying again: {found}"
            _, rows = screen.size
            lines = state_at_terminal(state)
            if len(lines) > rows - 1:
                lines = [*lines[: max(0, rows - 2)], f"{len(lines) - rows + 2} more lines"]
            screen.show([*lines, clean(trouble) or "q quits"][-rows:])
            if "q" in list(screen.keys(3600.0)):
                return
