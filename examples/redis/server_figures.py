"""What linepool knows of the server and its commands, less what there was at the last CONFIG RESETSTAT."""

from __future__ import annotations

import json
import os
import time
from typing import Any

from attrs import field, frozen
from transaction import Txn

from linepool import SetupError, server_stats, server_status

_NOTE = b"statistics"
_EMPTY: dict[str, Any] = {
    "pid": 0, "uptime_s": 0.0, "processes": {}, "connections": {}, "counters": {}, "workers": [],
    "listeners": [], "waiting": 0,
}  # fmt: skip
_ERRORS = ("client_error", "server_error", "timeout", "killed", "died")


@frozen
class CommandCounts:
    """How often a command was called.

    Attributes:
        seconds: How long all calls took together.
        errors: How many have ended with an error.
    """

    name: str
    calls: int
    seconds: float
    errors: int
    quantiles: dict[str, float]


@frozen
class Look:
    """The state of the server at a moment; of all workers.

    Attributes:
        status: As ``linepool status --json``.
        stats: As ``linepool stats --json``.
        before: Counts at the last CONFIG RESETSTAT, by name.
    """

    status: dict[str, Any] = field(factory=lambda: dict(_EMPTY))
    stats: dict[str, Any] = field(factory=lambda: {"commands": [], "slowest": []})
    before: dict[str, Any] = field(factory=dict)

    @classmethod
    def now(cls, t: Txn) -> Look:
        """Return the present state; empty, if the server cannot be asked."""
        try:
            status, stats = server_status(), server_stats()
        except SetupError:  # it has no control socket, or one of another user
            return cls()
        blob = t.note(_NOTE)
        before = json.loads(blob) if blob else {}
        return cls(status, stats, before if before.get("pid") == status["pid"] else {})

    def counter(self, name: str) -> int:
        """Return one of the server's counters."""
        return int(self.status["counters"].get(name, 0) - self.before.get(name, 0))

    @property
    def commands(self) -> list[CommandCounts]:
        """The figures of each command that was called."""
        found = []
        for row in self.stats["commands"]:
            calls, seconds, errors = self.before.get(f"command {row['command']}", (0, 0.0, 0))
            calls, seconds = row["requests"] - calls, row["handler_s"] - seconds
            failed = sum(row[name] for name in _ERRORS)
            quantiles = {"p50": row["p50_s"], "p95": row["p95_s"], "p99": row["p99_s"]}
            name = row["command"].lower().rstrip("|")
            if calls > 0 and not name.startswith("("):
                found.append(CommandCounts(name, calls, seconds, failed - errors, quantiles))
        return found

    @property
    def errors(self) -> int:
        """How many requests have ended with an error."""
        rows = sum(row[name] for row in self.stats["commands"] for name in _ERRORS)
        before = [one[2] for name, one in self.before.items() if name.startswith("command ")]
        return int(rows - sum(before))

    def keep(self, t: Txn) -> None:
        """Have all counts begin at 0 again."""
        counts: dict[str, Any] = {"pid": self.status["pid"], **self.status["counters"]}
        for row in self.stats["commands"]:
            failed = sum(row[name] for name in _ERRORS)
            counts[f"command {row['command']}"] = (row["requests"], row["handler_s"], failed)
        t.set_note(_NOTE, json.dumps(counts).encode())

    @property
    def clients(self) -> int:
        """How many clients are connected."""
        return sum(self.status["connections"].values())

    @property
    def resident_bytes(self) -> int:
        """The memory of the workers; what they share counts in each."""
        return sum(row["rss_bytes"] or 0 for row in self.status["workers"])

    def processor_seconds(self) -> tuple[float, float]:
        """Return the processor time of all processes: in the kernel, and outside; ended ones included."""
        helpers = [pid for pid in self.status["processes"].values() if pid]
        pids = {*helpers, *(row["pid"] for row in self.status["workers"])}
        ticks = os.sysconf("SC_CLK_TCK")
        user = system = 0
        for pid in pids:
            fields = _stat_of(pid)
            with_children = pid == self.status["pid"]
            user += sum(fields[: 3 if with_children else 1 : 2])
            system += sum(fields[1 : 4 if with_children else 2 : 2])
        return system / ticks, user / ticks


def _fields_of(pid: int) -> list[str]:
    """Return what the kernel says of a process, from its state on; see proc(5)."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            return file.read().rpartition(")")[2].split()
    except OSError:
        return ["0"] * 50


def _stat_of(pid: int) -> list[int]:
    """Return the clock ticks of a process: user, system, and likewise of its children that have ended."""
    return [int(word) for word in _fields_of(pid)[11:15]]


def started_ticks(pid: int) -> int:
    """Return when a process began, in clock ticks since the machine did."""
    return int(_fields_of(pid)[19])


def started_at() -> int:
    """Return when the server began, as Unix time."""
    ticks = os.sysconf("SC_CLK_TCK")
    up = time.clock_gettime(time.CLOCK_BOOTTIME) - started_ticks(os.getppid()) / ticks
    return int(time.time() - up)


class Pace:
    """How many commands per second are served, from one look of this worker to its next one."""

    _LEAST_S = 0.5

    def __init__(self) -> None:
        self._at = 0.0
        self._count = 0
        self._rate = 0

    def at(self, count: int) -> int:
        """Return the rate, given the count of all commands by now."""
        now = time.monotonic()
        if now - self._at >= self._LEAST_S:
            if self._at:
                self._rate = max(0, round((count - self._count) / (now - self._at)))
            self._at, self._count = now, count
        return self._rate
