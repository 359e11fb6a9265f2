"""How many CPUs this process may use: its affinity and the CPU quotas of its cgroups."""

from __future__ import annotations

import os

from linepool.kernel import features
from linepool.kernel.cgroups import cpu_quota


def available_cpus() -> float:
    """Return how many CPUs this process may use; a quota may be part of one."""
    affine = len(os.sched_getaffinity(0)) if features.AFFINITY else os.cpu_count() or 1
    return min(affine, cpu_quota())
