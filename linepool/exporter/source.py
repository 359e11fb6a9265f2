"""What the exporter knows of its server, asked once a second, however many clients look. Runs there."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Callable
from typing import Any

from attrs import frozen

from linepool.exporter.usage import Usage, UsageMeter
from linepool.ipc.figures import KEPT_NS, CommandFigures, Figures, Reader, SlowRequest

_PATIENCE = 5.0  # seconds for the master's reply
_CHUNK = 65536
_MOST_INCIDENTS = 100


@frozen
class Snapshot:
    """The server at one moment.

    Attributes:
        at: When, on the monotonic clock in seconds.
        wall: When, in seconds since the epoch.
        state: As ``linepool status --json`` shows it, without the topics that requests wait for.
        commands: The figures of each command.
        queue: How long requests have waited for a worker.
        slowest: The slowest requests of the last minutes.
        incidents: The last ones, as ``linepool events --json`` shows them.
        usage: What its processes use.
        busy_s: Of all workers together, since the exporter has begun; likewise ``idle_s``.
        saturated_s: For how long clients have been waiting for a pool at its maximum; 0: they are not.
    """

    at: float
    wall: float
    state: dict[str, Any]
    commands: list[CommandFigures]
    queue: CommandFigures
    slowest: list[SlowRequest]
    incidents: list[dict[str, Any]]
    usage: Usage
    busy_s: float
    idle_s: float
    saturated_s: float


class Source:
    """Where snapshots come from.

    Args:
        control: Of the server's control socket.
        figures: The server's.
        slots: Returns how many slots have been used.

    Raises:
        OSError: There is no server at the control socket.
    """

    def __init__(self, control: str, figures: Figures, slots: Callable[[], int]) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(_PATIENCE)
        self._socket.connect(control)
        self._unread = b""
        self._is_owed = False  # a reply has not come yet
        self._reader = Reader(figures)
        self._slots = slots
        self._usage = UsageMeter()
        self._last: Snapshot | None = None
        self._incidents: dict[int, dict[str, Any]] = {}
        self._change = 0
        self._saturated_since = 0.0

    def ask(self) -> Snapshot:
        """Return the server as it is now.

        Raises:
            EOFError: The master is gone.
            OSError: It does not answer in time.
        """
        state = _without_topics(json.loads(self._reply(b"STATUS json\n")))
        now, slots, last = time.monotonic(), self._slots(), self._last
        now_ns = time.monotonic_ns()
        passed = now - last.at if last else 0.0
        tally = state["tally"]
        before = last.state["counters"]["saturated_s"] if last else None
        if before is None or state["counters"]["saturated_s"] <= before:
            self._saturated_since = now
        self._last = Snapshot(
            at=now,
            wall=time.time(),
            state=state,
            commands=self._reader.commands(slots),
            queue=self._reader.queue(slots),
            slowest=self._reader.slowest(slots, now_ns - KEPT_NS),
            incidents=self._ask_for_incidents(),
            usage=self._usage.measure(state),
            busy_s=(last.busy_s if last else 0.0) + passed * tally["busy"],
            idle_s=(last.idle_s if last else 0.0) + passed * tally["idle"],
            saturated_s=now - self._saturated_since,
        )
        return self._last

    def _ask_for_incidents(self) -> list[dict[str, Any]]:
        found = json.loads(self._reply(b"EVENTS json %d\n" % self._change))
        changed = {one["number"]: one for one in found}
        newest = max((one["change"] for one in changed.values()), default=self._change)
        if newest < self._change:  # they are kept elsewhere now, and begin anew
            self._incidents = {}
        self._incidents |= changed
        self._change = newest
        numbers = sorted(self._incidents)
        for number in numbers[:-_MOST_INCIDENTS]:
            del self._incidents[number]
        return [self._incidents[number] for number in numbers[-_MOST_INCIDENTS:]]

    def _reply(self, request: bytes) -> bytes:
        """Return the reply to a request; one that did not come in time to the request before is left out."""
        if self._is_owed:
            self._line()
            self._is_owed = False
        self._socket.sendall(request)
        self._is_owed = True
        line = self._line()
        self._is_owed = False
        return line

    def _line(self) -> bytes:
        while b"\n" not in self._unread:
            data = self._socket.recv(_CHUNK)
            if not data:
                raise EOFError
            self._unread += data
        line, _, self._unread = self._unread.partition(b"\n")
        return line

    def close(self) -> None:
        """Close the connection to the master."""
        with contextlib.suppress(OSError):
            self._socket.close()


def _without_topics(state: dict[str, Any]) -> dict[str, Any]:
    """Return a state without the names of topics: the app may make them of words of requests."""
    for row in state["waiters"]["topics"]:
        del row["topic"]
    return state
