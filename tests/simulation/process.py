"""The processes of the simulated kernel, and their threads."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from greenlet import greenlet

if TYPE_CHECKING:
    from tests.simulation.epolls import File
    from tests.simulation.kernel import Kernel

_FIRST = 3  # descriptor of a process


def error(number: int) -> OSError:
    """Return the error of a system call."""
    return OSError(number, os.strerror(number))


class Process:
    """A process.

    Attributes:
        fds: The open files, by descriptor.
        files: How many descriptors it may have.
        status: How it has ended, as waitid(2) says; None: it has not.
        handlers: Those of signals.
        pending: Signals that have come.
        doom: After so many steps more it is killed; None: it is not.
        last_messages: After so many messages that it sends it is killed; 0: it is not.
        frozen_ns: Until when no thread of it runs.
        at_parents_end: The signal that the kernel sends it when its parent has ended; 0: none.
        entry: The file behind its pidfds.
        begun_with: Of a worker, the last connection of the parker's that it has begun with.
        generation: Of a worker, the number of its generation.
        has_holder: Its files outlive it, until its process group is killed.
        left_behind: These, once it is dead.
    """

    def __init__(self, kernel: Kernel, pid: int, name: str, parent: int) -> None:
        self.kernel, self.pid, self.name, self.parent = kernel, pid, name, parent
        self.fds: dict[int, File] = {}
        self.files = 1024
        self.tasks: list[Task] = []
        self.status: int | None = None
        self.reaped = False
        self.handlers: dict[int, Callable[[int, Any], object]] = {}
        self.pending: list[int] = []
        self.entry: File
        self.begun_with = self.generation = 0
        self.has_holder = False
        self.left_behind: dict[int, File] = {}
        self.doom: int | None = None
        self.frozen_ns = self.last_messages = self.at_parents_end = 0
        self.facts: Any = None

    def __repr__(self) -> str:
        return f"{self.name}[{self.pid}]"

    def file(self, number: int) -> File:
        """Return the file of a descriptor."""
        try:
            return self.fds[number]
        except KeyError:
            raise error(errno.EBADF) from None

    def install(self, file: File, lowest: int = _FIRST) -> int:
        """Return a new descriptor of a file."""
        number = lowest
        while number in self.fds:
            number += 1
        if number >= self.files:
            raise error(errno.EMFILE)
        self.fds[number] = file
        file.refs += 1
        return number

    def close(self, number: int) -> None:
        """Close a descriptor."""
        file = self.fds.pop(number, None)
        if file is None:
            self.kernel.bad_close(self, number)
            raise error(errno.EBADF)
        file.release(self, "closed")


class Task:
    """A thread of a process.

    Attributes:
        sleeps: It waits for something.
        dead: Its process has ended, or it has.
        waits: How often it has waited for something.
        most_waits: At how many its pace is looked at; that was so last at ...
        paced_ns: ... this moment.
        is_late: It was kept waiting before its next turn.
    """

    __slots__ = (
        *("dead", "greenlet", "is_late", "most_waits", "name", "number", "paced_ns", "process"),
        *("since", "sleeps", "waits"),
    )

    def __init__(
        self, process: Process, name: str, number: int, call: Callable[[], object]
    ) -> None:
        self.process, self.name, self.number = process, name, number
        self.sleeps = self.dead = self.is_late = False
        self.since = self.waits = self.most_waits = self.paced_ns = 0
        self.greenlet = greenlet(call, process.kernel.hub)

    def __repr__(self) -> str:
        return f"{self.process}{'' if self is self.process.tasks[0] else '/' + self.name}"
