"""Measure the processor time and memory of a server and of the machine, from proc(5)."""

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
    """Return the pids of a process and of all its descendants."""
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
    """Return the processor time of a process tree so far, ended processes included.

    Live processes are measured to the nanosecond, their ended threads included; their reaped
    children only to the tick.
    """
    total = 0.0
    for one in tree(pid):
        with contextlib.suppress(OSError):
            total += own_cpu_seconds(one)
            # The command, in parentheses, may contain any character; cutime and cstime are fields 16 and 17.
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
            total += (int(fields[13]) + int(fields[14])) / _TICKS
    return total


def own_cpu_seconds(pid: int) -> float:
    """Return the processor time of one process so far."""
    # The clock of another process, by its pid: see clock_getcpuclockid(3).
    return time.clock_gettime((~pid << 3) | 2)


def private_bytes(pids: Iterable[int]) -> int:
    """Return the private memory of some processes."""
    return _rollup_bytes(pids, "Private_Clean:", "Private_Dirty:")


def memory_mb(pid: int) -> float:
    """Return the memory (PSS) of a process tree in MB: a page shared by n processes counts as 1/n in each."""
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
    """Wait until a process tree is idle, for at most ``limit`` seconds."""
    give_up_at = time.monotonic() + limit
    before = cpu_seconds(pid)
    while time.monotonic() < give_up_at:
        time.sleep(_CALM_FOR)
        now = cpu_seconds(pid)
        if now - before < _CALM_CPU:
            return
        before = now


@frozen
class Sample:
    """Processor time used up to a moment, in seconds.

    Attributes:
        at: The moment, on the monotonic clock.
        server: Of a process tree.
        first: Of its first process.
        machine: Of all processes; only differences between samples mean something.
        ours: Of the process that takes the sample.
    """

    at: float
    server: float
    first: float
    machine: float
    ours: float


def sample(pid: int) -> Sample:
    """Measure a process tree and the machine."""
    at = time.monotonic()
    # The kernel counts idle time exactly, but busy time by sampling at each tick: a process that a
    # timer wakes and that sleeps before the next tick is never counted.
    machine = at * (os.cpu_count() or 1) - _idle_seconds()
    return Sample(at, cpu_seconds(pid), own_cpu_seconds(pid), machine, time.process_time())


def _idle_seconds() -> float:
    columns = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    return (int(columns[_IDLE]) + int(columns[_IOWAIT])) / _TICKS


def processor() -> str:
    """Return the processor model."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return os.uname().machine
