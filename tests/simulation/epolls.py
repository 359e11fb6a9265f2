"""What all open files of the simulated kernel have in common, and the epoll sets that watch them."""

from __future__ import annotations

import errno
import select

from tests.simulation.kernel import Kernel
from tests.simulation.process import Process, Task, error

IN, OUT, ERR, HUP, RDHUP = (
    select.EPOLLIN,
    select.EPOLLOUT,
    select.EPOLLERR,
    select.EPOLLHUP,
    select.EPOLLRDHUP,
)
EXCLUSIVE, _EDGE = select.EPOLLEXCLUSIVE, select.EPOLLET
_ALWAYS = ERR | HUP

Key = tuple[int, "File"]
"""Of an entry of an epoll set: the number of a descriptor, and its file."""
Entry = list[int]
"""The events that are wanted, and the change up to which they were reported."""


class File:
    """An open file: what descriptors of any process, and messages on their way, refer to.

    Attributes:
        refs: How many do.
        sleepers: Threads that wait for it.
        sets: The epoll sets that it is in, with its entries there.
        changes: How often something has happened.
    """

    kind = "file"

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.refs = 0
        self.changes = 0
        self.sleepers: dict[Task, None] = {}
        self.sets: dict[EpollSet, dict[Key, Entry]] = {}
        kernel.cookies += 1
        self.cookie = kernel.cookies

    def events(self) -> int:
        """Return what an epoll set would report."""
        return 0

    def changed(self) -> None:
        """Wake what waits for it."""
        self.changes += 1
        if self.sleepers:
            for task in list(self.sleepers):
                self.kernel.wake(task)
        if self.sets:
            events = self.events()
            for epoll, entries in list(self.sets.items()):
                epoll.happened(entries, events)

    def release(self, process: Process, how: str) -> None:
        """Have one reference less; ``how``: it was "closed", or its process has "ended" or "left"."""
        self.refs -= 1
        if self.refs:
            return
        for epoll in list(self.sets):
            epoll.forget(self)
        self.on_last(process, how)

    def on_last(self, process: Process, how: str) -> None:
        """Note that no reference is left."""


class EpollSet(File):
    """An epoll set. As in the kernel, an entry is a file under a number, and stays while the file is open.

    Attributes:
        entries: The events that are wanted, and up to which change they were reported.
        hot: Those of which something may have happened.
    """

    kind = "epoll"

    def __init__(self, kernel: Kernel) -> None:
        super().__init__(kernel)
        self.entries: dict[Key, Entry] = {}
        self.hot: dict[Key, Entry] = {}

    def control(self, process: Process, number: int, events: int | None, *, new: bool) -> None:
        """Add, change or (None) remove an entry."""
        file = process.file(number)
        key = (number, file)
        if new == (key in self.entries):
            raise error(errno.EEXIST if new else errno.ENOENT)
        if events is None:
            del self.entries[key]
            self.hot.pop(key, None)
            entries = file.sets[self]
            del entries[key]
            if not entries:
                del file.sets[self]
        else:
            self.entries[key] = entry = [events, -1]
            self.hot.pop(key, None)
            file.sets.setdefault(self, {})[key] = entry
            self.happened({key: entry}, file.events())

    def happened(self, entries: dict[Key, Entry], events: int) -> None:
        """Note what a file reports now."""
        for key, entry in entries.items():
            if events & (entry[0] | _ALWAYS):
                self.hot[key] = entry
                self.changed()

    def forget(self, file: File) -> None:
        """Remove the entries of a file that nothing refers to any more."""
        for key in file.sets.pop(self):
            del self.entries[key]
            self.hot.pop(key, None)

    def ready(self) -> list[tuple[int, int]]:
        """Return what has happened."""
        if not self.hot:
            return []
        found = []
        for key, entry in list(self.hot.items()):
            wanted, seen = entry
            number, file = key
            event = file.events() & (wanted | _ALWAYS)
            if event and not (wanted & _EDGE and seen == file.changes):
                entry[1] = file.changes
                found.append((number, event))
            else:
                del self.hot[key]
        if len(found) > 1 and self.kernel.mean:
            first = self.kernel.choices.below(len(found))
            found = found[first:] + found[:first]
        return found

    def events(self) -> int:
        return IN if self.ready() else 0

    def on_last(self, process: Process, how: str) -> None:
        for _, file in self.entries:
            file.sets.pop(self, None)
