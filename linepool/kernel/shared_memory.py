"""Memory that processes share, also those that are not forks of each other (memfd_create(2)).

Its size is sealed (F_ADD_SEALS in fcntl(2)): no process can shorten it, which would end each process that
uses it with SIGBUS. It stays writable.
"""

from __future__ import annotations

import contextlib
import mmap
import os
from typing import Self

from linepool.kernel.memory import map_file
from linepool.kernel.memory_file import FIXED_SIZE, memory_file, seal, seals_of
from linepool.kernel.standard import with_high_number


class SharedFile:
    """Shared memory that is not mapped yet: its descriptor, by which a process can attach it.

    The descriptor has a high number.

    Attributes:
        descriptor: Of the memory; -1: closed, by ``close`` or because this object is not used any more.
    """

    descriptor = -1

    @classmethod
    def new(cls, size: int, name: str) -> Self:
        """Return new memory.

        Args:
            size: In bytes; all are 0 at first.
            name: To be seen in /proc/PID/maps.

        Raises:
            OSError: The kernel has no memory or no descriptor for it.
        """
        file = cls()
        file.descriptor = with_high_number(memory_file(f"linepool-{name}"))
        os.ftruncate(file.descriptor, size)
        seal(file.descriptor, FIXED_SIZE)
        return file

    @classmethod
    def attach(cls, descriptor: int, size: int) -> Self:
        """Return the memory that another process has made.

        Args:
            descriptor: The new object owns it, unless this raises. The memory gets another number.
            size: What it must have.

        Raises:
            ValueError: The descriptor is of something else, or the size is another.
            OSError: The kernel has no descriptor for it.
        """
        try:
            seals = seals_of(descriptor, FIXED_SIZE)
        except OSError as error:
            raise ValueError(
                f"descriptor {descriptor} is not shared memory: {error.strerror}"
            ) from None
        if seals != FIXED_SIZE:
            raise ValueError(
                f"descriptor {descriptor} is not shared memory: its seals are {seals:#x}"
            )
        found = os.fstat(descriptor).st_size
        if found != size:
            raise ValueError(f"the shared memory has {found} bytes, not {size}")
        file = cls()
        file.descriptor = with_high_number(descriptor)
        os.set_inheritable(file.descriptor, False)
        return file

    def close(self) -> None:
        """Close the descriptor in this process; maps of it stay."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            with contextlib.suppress(OSError):  # the app has closed it
                os.close(descriptor)

    def __del__(self) -> None:
        self.close()


class SharedMemory:
    """Shared memory that is mapped as a whole.

    Its descriptor is the only one: ``map`` has none of its own, unlike any other mmap of a file, so a
    handler that closes low numbers cannot make it close the file of another object.

    Attributes:
        map: The memory. It does without the descriptor.

    Args:
        size: In bytes; all are 0 at first.
        name: To be seen in /proc/PID/maps.

    Raises:
        OSError: The kernel has no memory or no descriptor for it.
    """

    def __init__(self, size: int, name: str) -> None:
        self._file = SharedFile.new(size, name)
        self.map: mmap.mmap = map_file(self._file.descriptor, size)

    @property
    def descriptor(self) -> int:
        """The descriptor of the memory; -1: closed."""
        return self._file.descriptor

    @classmethod
    def attach(cls, descriptor: int, size: int) -> SharedMemory:
        """Return the memory that another process has made; arguments and errors as of ``SharedFile``."""
        memory = cls.__new__(cls)
        memory._file = SharedFile.attach(descriptor, size)
        memory.map = map_file(memory._file.descriptor, size)
        return memory

    def close(self) -> None:
        """Close the descriptor in this process; the map stays."""
        self._file.close()
