"""The memory of the figures, and the names of the commands in it."""

from __future__ import annotations

import mmap
from collections.abc import Iterable
from typing import Any

from linepool.ipc.figures.words import (
    BLOCKS,
    FIRST_COMMAND,
    NAME_BYTES,
    NAMES_BYTES,
    OTHER,
    ROW_BYTES,
    ROWS,
    TOTAL_BYTES,
)
from linepool.kernel.memory import map_file
from linepool.kernel.shared_memory import SharedFile


class Figures:
    """The figures of a server. A process maps only the rows that it uses; what nobody uses takes no memory.

    Attributes:
        file: The memory.

    Raises:
        OSError: The kernel has no memory or no descriptor for it.
    """

    def __init__(self) -> None:
        self._use(SharedFile.new(TOTAL_BYTES, "figures"))

    def handed_over(self) -> tuple[dict[str, Any], list[int]]:
        """Return what another process needs to take them over, for JSON, and descriptors; it keeps them."""
        return {}, [self.file.descriptor]

    @classmethod
    def taken_over(cls, facts: dict[str, Any], descriptors: list[int]) -> Figures:
        """Return the figures that another process has handed over; as ``take_over``."""
        figures = cls.__new__(cls)
        figures.take_over(facts, descriptors)
        return figures

    def take_over(self, _facts: dict[str, Any], descriptors: list[int]) -> None:
        """Go on with the figures that another process has handed over.

        Args:
            _facts: As returned by ``handed_over``.
            descriptors: Likewise; this object owns them from now on.

        Raises:
            ValueError: They are of other code, in which sizes are others.
            OSError: The kernel has no memory for them.
        """
        self._use(SharedFile.attach(descriptors[0], TOTAL_BYTES))

    def _use(self, file: SharedFile) -> None:
        self.file = file
        self._names = memoryview(map_file(file.descriptor, NAMES_BYTES))
        self._rows: dict[int, mmap.mmap] = {}

    def row(self, number: int) -> memoryview:
        """Return the bytes of a row: 0 is that of the master, ``slot + 1`` that of a slot."""
        if not 0 <= number < ROWS:
            raise ValueError(f"there is no row {number}")
        if number not in self._rows:
            begin = NAMES_BYTES + number * ROW_BYTES
            self._rows[number] = map_file(self.file.descriptor, ROW_BYTES, begin)
        return memoryview(self._rows[number])

    def pages(self) -> list[mmap.mmap]:
        """Return what this process has mapped of the rows."""
        return list(self._rows.values())

    def names(self) -> dict[str, int]:
        """Return the blocks of the commands by their names."""
        found = {}
        for block in range(FIRST_COMMAND, BLOCKS):
            name = bytes(self._names[block * NAME_BYTES :][:NAME_BYTES]).rstrip(b"\0")
            if not name:
                break
            found[name.decode("utf-8", "replace")] = block
        return found

    def add_names(self, names: Iterable[str]) -> None:
        """Give a block to each command that has none, as long as there are any; to be called by the master.

        A command keeps its block, also when it is gone: a name that comes again goes on with its figures.
        """
        known = self.names()
        for name in names:
            block = FIRST_COMMAND + len(known)
            if known.setdefault(shown(name), block) == block:
                if block == BLOCKS:
                    return
                text = shown(name).encode().ljust(NAME_BYTES, b"\0")
                self._names[block * NAME_BYTES :][:NAME_BYTES] = text

    def blocks(self, names: Iterable[str]) -> list[int]:
        """Return the block of each command; a name without one shares that of the others."""
        known = self.names()
        return [known.get(shown(name), OTHER) for name in names]


def shown(name: str) -> str:
    """Return a command's name as it is in the table: cut to its place, without what ends it."""
    text = name.replace("\0", "").encode("utf-8", "replace")[:NAME_BYTES]
    return text.decode("utf-8", "ignore")
