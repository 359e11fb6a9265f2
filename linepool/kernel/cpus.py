"""How many CPUs this process may use: its affinity and the CPU quotas of its cgroups."""

from __future__ import annotations

import os

from linepool.kernel.cgroups import cpu_quota


def available_cpus() -> float:
    """Return how many CPUs this process may use; a quota may be part of one."""
    return min(len(os.sched_getaffinity(0)), cpu_quota())
