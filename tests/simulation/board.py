"""The board of a simulation: the real layout and views; a thread may give way at each look at a word."""

from __future__ import annotations

import functools
from types import SimpleNamespace
from typing import Any

from linepool.ipc.board import Board
from linepool.ipc.board.layout import layout_hash
from tests.simulation.kernel import STEP_NS, Kernel

SLOTS = 12
"""More than any schedule uses at a time."""
_HELD = 8
"""More connections than any schedule has."""
_RATES = 64
_LAYOUT = layout_hash()


@functools.cache
def _memory(size: int) -> tuple[bytearray, memoryview, memoryview]:
    """Return memory, a view of it, and zeros: always the same, for new pages take time."""
    memory = bytearray(size)
    return memory, memoryview(memory), memoryview(bytes(size))


_used: set[int] = set(range(SLOTS))
"""The slots that the last schedule has used."""


class Words:
    """Words of the board."""

    __slots__ = ("_kernel", "_view")

    def __init__(self, kernel: Kernel, view: Any) -> None:
        self._kernel, self._view = kernel, view

    def __len__(self) -> int:
        return len(self._view)

    # As Kernel.tick(): most steps of a schedule are these.

    def __getitem__(self, at: Any) -> Any:
        kernel = self._kernel
        kernel.now_ns += STEP_NS
        kernel.left -= 1
        if kernel.left < 0:
            kernel.give_way()
        return self._view[at]

    def __setitem__(self, at: Any, value: Any) -> None:
        kernel = self._kernel
        kernel.now_ns += STEP_NS
        kernel.left -= 1
        if kernel.left < 0:
            kernel.give_way()
        self._view[at] = value


class SimulatedBoard(Board):
    """The board, in memory of this process."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._place(_HELD)
        self._slots: dict[int, tuple[Any, Any, Any]] = {}
        self._rates_at = self._begin + SLOTS * self._size
        memory: Any = SimpleNamespace(map=self._cleared(self._rates_at + _RATES * 8))
        self._use(memory)
        self.head = Words(self._kernel, self.head)  # type: ignore[assignment]

    def _cleared(self, size: int) -> bytearray:
        """Return the memory, and set to 0 what another schedule has used of it."""
        memory, view, zeros = _memory(size)
        parts = [slice(self._begin), slice(self._rates_at, size)]
        parts += [slice(at := self._begin + slot * self._size, at + self._size) for slot in _used]
        for part in parts:
            view[part] = zeros[part]
        _used.clear()
        return memory

    def handed_over(self) -> tuple[dict[str, Any], list[int]]:
        """Return nothing: it is in the memory of all processes."""
        return {}, []

    def peek(self, slot: int, number: int) -> int:
        """Return a word of a slot; no thread gives way."""
        words = self.slot(slot)[1]
        assert isinstance(words, Words)
        return int(words._view[number])

    def slot(self, number: int) -> Any:
        if number not in self._slots:
            _used.add(number)
            view, words, published = super().slot(number)
            wrap = Words
            self._slots[number] = view, wrap(self._kernel, words), wrap(self._kernel, published)
        return self._slots[number]
