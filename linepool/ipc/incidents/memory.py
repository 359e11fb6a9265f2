"""The memory of the incidents."""

from __future__ import annotations

import mmap
import os
from typing import Any

from linepool.ipc.incidents.words import HEAD, TOTAL_BYTES, head_of
from linepool.kernel.memory import map_file
from linepool.kernel.shared_memory import SharedFile


class IncidentMemory:
    """The memory of a ring, mapped as a whole; in a file it outlives the server.

    Args:
        descriptor: Of a file that is this server's alone and has its whole size; None: in no file.
        path: Of the file.
        lock: Of the same file, opened once more and locked; the new object owns both. A map keeps an open
            file alive, also in forks, and these would keep the lock.

    Attributes:
        map: The memory. It does without the descriptor, so a fork of this process can read it.
        path: Of the file; "": it is in no file.

    Raises:
        OSError: The kernel has no memory or no descriptor for it.
    """

    map: mmap.mmap

    def __init__(self, descriptor: int | None = None, path: str = "", lock: int = -1) -> None:
        self.path = path
        self._memory: SharedFile | None = None
        self._descriptor, self._lock = -1, lock
        if descriptor is None:
            self._use_memory(SharedFile.new(TOTAL_BYTES, "incidents"))
        else:
            self._descriptor = descriptor
            self.map = map_file(descriptor, TOTAL_BYTES)
        if not self.is_readable:
            self.map[: HEAD.size] = head_of()

    def handed_over(self) -> tuple[dict[str, Any], list[int]]:
        """Return what another process needs to take it over, for JSON, and descriptors; it keeps them."""
        locks = [self._lock] if self.path else []
        return {"path": self.path, "head": head_of().hex()}, [self.descriptor, *locks]

    @classmethod
    def taken_over(cls, facts: dict[str, Any], descriptors: list[int]) -> IncidentMemory:
        """Return the memory that another process has handed over.

        Args:
            facts: As returned by ``handed_over``.
            descriptors: Likewise; the new object owns them, unless this raises.

        Raises:
            ValueError: It has another form.
            OSError: The kernel has no memory for it.
        """
        if facts["head"] != head_of().hex():
            raise ValueError("the incidents are laid out in another way")
        if facts["path"]:
            descriptor, lock = descriptors
            if os.fstat(descriptor).st_size != TOTAL_BYTES:
                raise ValueError(f"{facts['path']} has another size")
            for number in descriptors:
                os.set_inheritable(number, False)
            return cls(descriptor, facts["path"], lock)
        memory = cls.__new__(cls)
        memory.path, memory._descriptor, memory._lock = "", -1, -1
        memory._use_memory(SharedFile.attach(descriptors[0], TOTAL_BYTES))
        return memory

    def _use_memory(self, memory: SharedFile) -> None:
        self._memory = memory
        self.map = map_file(memory.descriptor, TOTAL_BYTES)

    @property
    def descriptor(self) -> int:
        """The descriptor of the memory or the file; -1: closed."""
        return self._memory.descriptor if self._memory else self._descriptor

    @property
    def is_readable(self) -> bool:
        """Whether it has the form that this code reads."""
        return self.map[: HEAD.size] == head_of()

    @property
    def is_whole(self) -> bool:
        """Whether nobody has shortened the file: to touch what is missing would end this process (SIGBUS)."""
        return self._descriptor < 0 or os.fstat(self._descriptor).st_size >= TOTAL_BYTES

    def leave_file(self) -> None:
        """Go on in empty memory that is in no file.

        Raises:
            OSError: The kernel has no memory or no descriptor for it.
        """
        memory = SharedFile.new(TOTAL_BYTES, "incidents")
        self.close()
        self._use_memory(memory)
        self.path = ""
        self.map[: HEAD.size] = head_of()

    def close(self) -> None:
        """Close the descriptors in this process, with the last one the file's lock; the map stays."""
        if self._memory is not None:
            self._memory.close()
        for number in (self._descriptor, self._lock):
            if number >= 0:
                os.close(number)
        self._descriptor = self._lock = -1
