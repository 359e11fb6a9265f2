"""What the cgroups of a process allow it: CPU time and memory.

A limit is the least of those of its own group and all above it, as far as they are mounted here
(cgroups(7); Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/ of the kernel). Controllers may be in
either hierarchy while both are mounted, so each is asked.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path

_PROC = Path("/proc/self")
_V1_UNLIMITED = (
    2**60
)  # memory.limit_in_bytes without a limit: the largest multiple of a page, or nearly


def cpu_quota(proc: Path = _PROC) -> float:
    """Return how many CPUs the cgroups of a process allow it; infinite: any number.

    Args:
        proc: The directory of the process in /proc.
    """
    return min(map(_quota, _folders("cpu", proc)), default=math.inf)


def memory_limit(proc: Path = _PROC) -> float:
    """Return how many bytes of memory the cgroups of a process allow it; infinite: any number.

    Args:
        proc: The directory of the process in /proc.
    """
    return min(map(_memory, _folders("memory", proc)), default=math.inf)


def times_throttled(proc: Path = _PROC) -> int:
    """Return in how many periods a group of a process had used up its CPU quota.

    Only differences mean anything. 0 if no group has a quota.

    Args:
        proc: The directory of the process in /proc.
    """
    return sum(map(_throttled, _folders("cpu", proc)))


def _folders(controller: str, proc: Path) -> list[Path]:
    """Return the folders of a process's groups that may have a controller, and of those above them."""
    try:
        groups = os.fsdecode((proc / "cgroup").read_bytes()).splitlines()
        mounts = os.fsdecode((proc / "mountinfo").read_bytes()).splitlines()
        return [folder for group in groups for folder in _upwards(group, mounts, controller)]
    except (OSError, ValueError):  # no /proc, or not as described
        return []


def _upwards(group: str, mounts: list[str], controller: str) -> Iterator[Path]:
    """Yield the folders of a group and of those above it, if they may have the controller.

    Args:
        group: A line of /proc/PID/cgroup: ``0::/path`` (v2) or ``4:cpu,cpuacct:/path`` (v1).
        mounts: The lines of /proc/PID/mountinfo (proc_pid_mountinfo(5)).
        controller: ``cpu`` or ``memory``.
    """
    _, controllers, path = group.split(":", 2)
    if controllers and controller not in controllers.split(","):
        return
    for mount in mounts:
        place, _, kind = mount.partition(" - ")
        root, point = place.split()[3:5]
        kind, _, options = kind.split(" ", 2)
        is_v1 = kind == "cgroup" and controller in options.split(",")
        if not (is_v1 if controllers else kind == "cgroup2"):
            continue
        folder = top = Path(_unescaped(point))
        with contextlib.suppress(ValueError):  # the group is not below what is mounted
            folder = top / Path(path).relative_to(_unescaped(root))
        if ".." in folder.parts:  # a group outside of the process's cgroup namespace
            folder = top
        yield folder
        while folder != top:
            folder = folder.parent
            yield folder


def _unescaped(path: str) -> str:
    """Return a path of mountinfo, where a blank is written as backslash, 040."""
    return re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), path)


def _quota(folder: Path) -> float:
    """Return the quota of one group in CPUs; infinite: it has none."""
    with contextlib.suppress(OSError, ValueError):
        quota, period = (folder / "cpu.max").read_text().split()
        return _share(int(quota), int(period))  # ValueError: it is "max"
    with contextlib.suppress(OSError, ValueError):
        quota_us = int((folder / "cpu.cfs_quota_us").read_text())  # -1: none
        return _share(quota_us, int((folder / "cpu.cfs_period_us").read_text()))
    return math.inf


def _share(quota: int, period: int) -> float:
    return quota / period if quota > 0 and period > 0 else math.inf


def _memory(folder: Path) -> float:
    """Return the memory limit of one group in bytes; infinite: it has none."""
    with contextlib.suppress(OSError, ValueError):
        return int((folder / "memory.max").read_text())  # ValueError: it is "max"
    with contextlib.suppress(OSError, ValueError):
        limit = int((folder / "memory.limit_in_bytes").read_text())
        return limit if 0 <= limit < _V1_UNLIMITED else math.inf
    return math.inf


def _throttled(folder: Path) -> int:
    """Return the number of periods in which one group was throttled (cpu.stat, the same in v1 and v2)."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        lines = (folder / "cpu.stat").read_text().splitlines()
        return int(dict(line.split(" ", 1) for line in lines)["nr_throttled"])
    return 0
