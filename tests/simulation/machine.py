"""The simulated kernel that runs, and the process that runs in it."""

from __future__ import annotations

from tests.simulation.files import File
from tests.simulation.kernel import Kernel, Process


class _Machine:
    """The kernel that runs."""

    kernel: Kernel


machine = _Machine()


def here() -> Process:
    """Return the process that runs."""
    task = machine.kernel.current
    return task.process if task is not None else machine.kernel.processes[1]


def file_of(number: int) -> File:
    """Return a file of that process; its thread may give way before."""
    machine.kernel.tick()
    return here().file(number)
