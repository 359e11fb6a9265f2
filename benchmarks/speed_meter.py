"""What a server and the machine use: processor time and memory, read from the kernel."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable
from pathlib import Path

from attrs import frozen

_TICKS = os.sysconf("SC_CLK_TCK")
_IDLE, _IOWAIT = 3, 4  # columns of /proc/stat
_CALM_FOR = 0.05  # seconds
_CALM_CPU = 0.002  # seconds


def tree(pid: int) -> list[int]:
    """Return the pids of a process and of all that descend from it."""
    found = [pid]
    for one in found:
        for task in _entries(Path(f"/proc/{one}/task")):
            with contextlib.suppress(OSError):  # it has ended
                found += [int(child) for child in (task / "children").read_text().split()]
    return found


def _entries(directory: Path) -> list[Path]:
    with contextlib.suppress(OSError):
        return list(directory.iterdir())
    return []


def cpu_seconds(pid: int) -> float:
    """Return the processor time of a tree so far, with what its ended members have used.

    Those alive tell it to the nanosecond, ended threads included. What their reaped children have
    used is known in ticks only.
    """
    total = 0.0
    for one in tree(pid):
        with contextlib.suppress(OSError):
            total += own_cpu_seconds(one)
            # The name, in parentheses, may hold anything; cutime and cstime are fields 16 and 17.
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
            total += (int(fields[13]) + int(fields[14])) / _TICKS
    return total


def own_cpu_seconds(pid: int) -> float:
    """Return the processor time of one process so far."""
    # The clock of another process, by its pid: see clock_getcpuclockid(3).
    return time.clock_gettime((~pid << 3) | 2)


def private_bytes(pids: Iterable[int]) -> int:
    """Return the memory that each of the processes has for itself alone."""
    return _rollup_bytes(pids, "Private_Clean:", "Private_Dirty:")


def memory_mb(pid: int) -> float:
    """Return the memory of a tree in MB; a page that n processes share counts as 1/n for each."""
    return _rollup_bytes(tree(pid), "Pss:") / 1e6


def _rollup_bytes(pids: Iterable[int], *names: str) -> int:
    total = 0
    for one in pids:
        with contextlib.suppress(OSError):  # it has ended
            for line in Path(f"/proc/{one}/smaps_rollup").read_text().splitlines():
                if line.startswith(names):
                    total += int(line.split()[1]) * 1024
    return total


def settle(pid: int, limit: float) -> None:
    """Wait until a tree does nothing any more, or for ``limit`` seconds."""
    give_up_at = time.monotonic() + limit
    before = cpu_seconds(pid)
    while time.monotonic() < give_up_at:
        time.sleep(_CALM_FOR)
        now = cpu_seconds(pid)
        if now - before < _CALM_CPU:
            return
        before = now


@frozen
class Look:
    """What has been used up to a moment, in seconds of processor time.

    Attributes:
        at: The moment, on the monotonic clock.
        server: By a tree of processes.
        first: By the first of them.
        machine: By everybody; only differences mean something.
        ours: By the process that looks.
    """

    at: float
    server: float
    first: float
    machine: float
    ours: float


def look(pid: int) -> Look:
    """Look at a tree and at the machine."""
    at = time.monotonic()
    # The kernel counts idle time exactly, but busy time by whom a tick finds running: somebody who
    # is woken by a timer and sleeps before the next tick is never found.
    machine = at * (os.cpu_count() or 1) - _idle_seconds()
    return Look(at, cpu_seconds(pid), own_cpu_seconds(pid), machine, time.process_time())


def _idle_seconds() -> float:
    columns = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    return (int(columns[_IDLE]) + int(columns[_IOWAIT])) / _TICKS


def processor() -> str:
    """Return the name of the machine's processors."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return os.uname().machine
