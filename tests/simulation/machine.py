"""The simulated kernel that runs, and the process that runs in it."""

from __future__ import annotations

from tests.simulation.epolls import File
from tests.simulation.kernel import Kernel
from tests.simulation.process import Process


class _Machine:
    """The kernel that runs."""

    kernel: Kernel


machine = _Machine()


def here() -> Process:
    """Return the process that runs."""
    kernel = machine.kernel
    task = kernel.current
    return task.process if task is not None else kernel.processes[1]


def file_of(number: int) -> File:
    """Return a file of that process; its thread may give way before."""
    kernel = machine.kernel
    kernel.tick()
    task = kernel.current
    return (task.process if task is not None else kernel.processes[1]).file(number)
