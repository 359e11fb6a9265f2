"""How many CPUs this process may use: its affinity and the CPU quotas of its cgroups."""

from __future__ import annotations

import contextlib
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path

_PROC = Path("/proc/self")


def available_cpus() -> float:
    """Return how many CPUs this process may use; a quota may be part of one."""
    return min(len(os.sched_getaffinity(0)), cpu_quota())


def cpu_quota(proc: Path = _PROC) -> float:
    """Return how many CPUs the cgroups of a process allow it; infinite: any number.

    The least quota counts of its own group and all above it, as far as they are mounted here
    (cgroups(7); Documentation/admin-guide/cgroup-v2.rst of the kernel).

    Args:
        proc: The directory of the process in /proc.
    """
    try:
        groups = os.fsdecode((proc / "cgroup").read_bytes()).splitlines()
        mounts = os.fsdecode((proc / "mountinfo").read_bytes()).splitlines()
        folders = [folder for group in groups for folder in _folders(group, mounts)]
    except (OSError, ValueError):  # no /proc, or not as described
        return math.inf
    return min(map(_quota, folders), default=math.inf)


def _folders(group: str, mounts: list[str]) -> Iterator[Path]:
    """Yield the folders of a group and of those above it.

    Args:
        group: A line of /proc/PID/cgroup: ``0::/path`` (v2) or ``4:cpu,cpuacct:/path`` (v1).
        mounts: The lines of /proc/PID/mountinfo (proc_pid_mountinfo(5)).
    """
    _, controllers, path = group.split(":", 2)
    if controllers and "cpu" not in controllers.split(","):
        return
    for mount in mounts:
        place, _, kind = mount.partition(" - ")
        root, point = place.split()[3:5]
        kind, _, options = kind.split(" ", 2)
        is_v1 = kind == "cgroup" and "cpu" in options.split(",")
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
