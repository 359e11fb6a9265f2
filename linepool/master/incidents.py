"""The memory of incidents: what has happened to workers, requests and the pool. Runs in the master.

The log says each of them once. Here the last hundred stay together, for ``linepool events`` and others.
No words of requests are among what is known of one. To note one costs some memory writes, no system call
that can wait.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Sequence
from typing import Any

from linepool.ipc.incidents import IncidentMemory, Reader, Writer
from linepool.master.stack_text import Call

log = logging.getLogger("linepool")

KILLED, DIED, TIMEOUT, SATURATED = "killed", "died", "timeout", "saturated"
NOT_READY, PARKER_DIED, CANNOT_FORK = "not_ready", "parker_died", "cannot_fork"
RELOAD_FAILED, UPGRADE_FAILED = "reload_failed", "upgrade_failed"
"""The kinds of incidents."""

_SAME_S = 60.0  # after which the same is another incident
_MOST_PLACES = 200  # of incidents that may happen again
_LASTING_S = 0.25  # how often the end of one that lasts is written
_MOST_TEXT = 1000  # characters
_MOST_NAME = 200
_FACTS: dict[str, Any] = {
    "kind": "",
    "command": None,
    "client": None,
    "pid": None,
    "slot": None,
    "generation": None,
    "ran_s": None,
    "limit_s": None,
    "signal": None,
    "status": None,
    "id": None,
    "why": None,
    "stack": (),
}


class Incidents:
    """Writes down what happens.

    Args:
        memory: The ring.

    Attributes:
        memory: Likewise; for readers.
    """

    def __init__(self, memory: IncidentMemory) -> None:
        self.memory = memory
        self._open()

    def _open(self) -> None:
        self._writer = Writer(self.memory)
        self._reader = Reader(self.memory)
        # The last incident of each kind and place: its number, and when it was, on the monotonic clock.
        self._last: dict[tuple[object, ...], tuple[int, float]] = {}
        now, wall = time.monotonic(), time.time()
        for one in self._reader.records():
            with contextlib.suppress(KeyError, TypeError, IndexError):  # written by other code
                ago = max(0.0, wall - one["last"])
                if ago < _SAME_S:
                    self._last[_place(one)] = one["number"], now - ago
        self._lasting_until = 0.0

    def records(self, since: int = 0) -> list[dict[str, Any]]:
        """Return the incidents; see ``Reader.records``."""
        return self._reader.records(since)

    def note(self, kind: str, stack: Sequence[Call] = (), /, **facts: Any) -> None:
        """Note an incident; if it is the same as one of the last minute, count that once more.

        Args:
            kind: One of those above.
            stack: Where it happened, the most recent call first.
            facts: What else is known of it; those of ``_FACTS``.
        """
        known = {**_FACTS, "kind": kind, **{name: _short(name, one) for name, one in facts.items()}}
        known["stack"] = [
            {"file": file[-_MOST_NAME:], "line": line, "function": function[:_MOST_NAME]}
            for file, line, function in stack
        ]
        self._keep(known, time.time())

    def saturated(self, since_s: float, why: str) -> None:
        """Note that connections wait and the pool is at its maximum: one incident as long as that lasts.

        Args:
            since_s: For how long it has been so.
            why: What there is to know, at its beginning.
        """
        now, wall = time.monotonic(), time.time()
        if now < self._lasting_until:
            return
        self._lasting_until = now + _LASTING_S
        place = _place({"kind": SATURATED, "stack": []})
        number, at = self._last.get(place, (0, 0.0))
        lasts = now - since_s <= at + _LASTING_S  # it has been noted since it began
        if lasts and self._is_usable() and self._writer.extend(number, wall, 0):
            self._last[place] = number, now
        else:
            known = {**_FACTS, "kind": SATURATED, "why": _short("why", why)}
            self._keep(known, wall, wall - since_s)

    def close(self) -> None:
        """Close the descriptor in this process, also in a new helper."""
        self.memory.close()

    def _keep(self, facts: dict[str, Any], wall: float, first: float | None = None) -> None:
        """Write an incident down, or count it with an earlier one."""
        if not self._is_usable():
            return
        now, place = time.monotonic(), _place(facts)
        number, at = self._last.get(place, (0, 0.0))
        is_same = number and now - at < _SAME_S
        if not (is_same and self._writer.extend(number, wall)):
            number = self._writer.add(facts, wall if first is None else first, wall)
        self._last.pop(place, None)
        self._last[place] = number, now
        if len(self._last) > _MOST_PLACES:
            del self._last[next(iter(self._last))]

    def _is_usable(self) -> bool:
        """Whether there is memory to write to; a file that was shortened is left."""
        try:
            if self.memory.is_whole:
                return True
            log.error(
                "incidents: %s was shortened; they are in memory from now on", self.memory.path
            )
            self.memory.leave_file()
        except OSError as error:
            log.error("incidents are not kept: %s", error.strerror)  # noqa: TRY400
            return False
        self._open()
        return True


def _place(facts: dict[str, Any]) -> tuple[object, ...]:
    """Return what an incident has in common with one that is the same."""
    stack = facts["stack"]
    if stack:
        call = stack[0]
        return facts["kind"], facts["command"], call["file"], call["line"], call["function"]
    if facts["kind"] == SATURATED:
        return (SATURATED,)
    names = ("kind", "command", "signal", "status", "why")
    return tuple(facts[name] for name in names)


def _short(name: str, value: object) -> object:
    """Return a fact that has room in a record; a text that is empty is not known."""
    if isinstance(value, str):
        return value[: _MOST_TEXT if name == "why" else _MOST_NAME] or None
    return round(value, 3) if isinstance(value, float) else value
