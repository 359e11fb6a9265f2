"""What the processes of a server use of the machine (proc(5)). Runs in the exporter."""

from __future__ import annotations

import contextlib
import os
import resource
import time
from collections.abc import Mapping
from typing import Any

from attrs import frozen

_PAGE_BYTES = resource.getpagesize()
_KINDS = ("master", "loader", "parker", "observer", "exporter", "bridge")


@frozen
class Usage:
    """What the processes use, by their kind; ``worker`` are all workers together.

    Attributes:
        memory_bytes: Resident, what they share counted in each.
        cpu_s: Processor time since the exporter has begun; of processes that have ended too.
        open_files: Of single processes.
        most_files: How many they may open.
    """

    memory_bytes: Mapping[str, int]
    cpu_s: Mapping[str, float]
    open_files: Mapping[str, int]
    most_files: int


class UsageMeter:
    """Measures it, and adds up what ended processes have used."""

    def __init__(self) -> None:
        self._clocks: dict[int, int] = {}
        self._spent_ns = dict.fromkeys((*_KINDS, "worker"), 0)

    def measure(self, state: Mapping[str, Any]) -> Usage:
        """Return what the processes use that a server's state names."""
        pids = {pid: kind for kind in _KINDS if (pid := state["processes"].get(kind))}
        pids |= {worker["pid"]: "worker" for worker in state["workers"]}
        memory = dict.fromkeys(dict.fromkeys([*pids.values(), "worker"]), 0)
        clocks = {}
        for pid, kind in pids.items():
            memory[kind] += _resident_bytes(pid)
            clocks[pid] = clock = _clock_ns(pid)
            # A pid that comes again has a clock that begins anew.
            before = self._clocks.get(pid, 0)
            self._spent_ns[kind] += clock - before if clock >= before else clock
        self._clocks = clocks
        singles = {kind: pid for pid, kind in pids.items() if kind in ("master", "parker")}
        return Usage(
            memory_bytes=memory,
            cpu_s={kind: self._spent_ns[kind] / 1e9 for kind in memory},
            open_files={kind: count for kind, pid in singles.items() if (count := _files(pid))},
            most_files=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        )


def _resident_bytes(pid: int) -> int:
    with (
        contextlib.suppress(OSError, ValueError, IndexError),
        open(f"/proc/{pid}/statm", "rb") as file,
    ):
        return int(file.read().split()[1]) * _PAGE_BYTES
    return 0


def _clock_ns(pid: int) -> int:
    """Return the processor time that a process has used (clock_getcpuclockid(3)); 0: it is gone."""
    try:
        return time.clock_gettime_ns((~pid << 3) | 2)
    except OSError:
        return 0


def _files(pid: int) -> int:
    """Return how many descriptors a process has; 0: it is gone, or that is not for this process to see."""
    with contextlib.suppress(OSError):
        return len(os.listdir(f"/proc/{pid}/fd"))
    return 0
