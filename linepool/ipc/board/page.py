"""The page behind the board: where the words are."""

from __future__ import annotations

import mmap
from typing import Any

from linepool.ipc.board.layout import layout_hash
from linepool.ipc.board.words import (
    ANNOUNCED,
    AWAITED,
    BAN,
    BRAKE,
    HEAD_WORDS,
    HELD,
    LAYOUT,
    LINE_BYTES,
    MAGIC,
    MAGIC_NUMBER,
    MAX_BANS,
    MAX_BRAKES,
    MOST_AWAITED,
    ORIGINS,
    PLACE_WORDS,
    PLACES,
    RATE_BUCKETS,
    SLOT_WORDS,
    SLOTS,
    STATE,
    WORD,
    count_in,
)
from linepool.kernel.memory import make_read_only
from linepool.kernel.shared_memory import SharedMemory
from linepool.pool.status import State
from linepool.settings import MAX_WORKERS


class Board:
    """The page with its head, one slot for each worker there may be, and what all of them write.

    The head and each slot begin on a memory page, so the kernel can keep a worker from writing to any
    but its own.

    Attributes:
        memory: The memory.
        page: The map of it.
        head: The words of the head.
        brakes: The table of braked commands.
        parker_origins: Counts of the parker's connections by their origins.
        bans: The table of bans.
        awaited: The topics for which most requests wait.
        rates: The buckets of ``rates``, which all workers write.

    Args:
        held: How many connections a worker may publish in its slot.
    """

    def __init__(self, held: int = 0) -> None:
        self._place(held)
        self._use(SharedMemory(self._bytes, "board"))
        self.head[PLACES] = held
        self.head[LAYOUT] = layout_hash()
        self.head[MAGIC] = MAGIC_NUMBER

    def handed_over(self) -> tuple[dict[str, Any], list[int]]:
        """Return what another process needs to take it over, for JSON, and descriptors; it keeps them."""
        return {"held": self._held}, [self.memory.descriptor]

    @classmethod
    def taken_over(cls, facts: dict[str, Any], descriptors: list[int]) -> Board:
        """Return the board that another process has handed over.

        Args:
            facts: As returned by ``handed_over``.
            descriptors: Likewise; the new object owns them. If this raises, some may be closed.

        Raises:
            ValueError: It is of other code, in which words or sizes are others.
            OSError: The kernel has no memory for it.
        """
        board = cls.__new__(cls)
        board._place(facts["held"])
        try:
            memory = SharedMemory.attach(descriptors[0], board._bytes)
        except ValueError as error:
            raise ValueError(f"the board's layout is another: {error}") from None
        board._use(memory)
        head = board.head
        expected = {MAGIC: MAGIC_NUMBER, LAYOUT: layout_hash(), PLACES: facts["held"]}
        for name, word in ("magic number", MAGIC), ("layout", LAYOUT), ("number of places", PLACES):
            if head[word] != expected[word]:
                raise ValueError(
                    f"the board's layout is another: its {name} is {head[word]:#x},"
                    f" not {expected[word]:#x}"
                )
        return board

    def _place(self, held: int) -> None:
        """Compute where everything is."""
        self._announced_at = LINE_BYTES + (SLOT_WORDS + 2 * held) * WORD
        used = self._announced_at + held * ANNOUNCED.size
        self._origins_at = _whole_pages(used)
        self._size = _whole_pages(self._origins_at + 2 * ORIGINS)
        self._held = held
        self._bans_at = mmap.PAGESIZE + 4 * ORIGINS
        self._awaited_at = self._bans_at + MAX_BANS * BAN.size
        self._begin = _whole_pages(self._awaited_at + MOST_AWAITED * AWAITED.size)
        self._rates_at = self._begin + MAX_WORKERS * self._size
        self._bytes = self._rates_at + RATE_BUCKETS * WORD

    def _use(self, memory: SharedMemory) -> None:
        self.memory = memory
        self.page: mmap.mmap = memory.map
        self._view = memoryview(self.page)
        self.head = self._view[: HEAD_WORDS * WORD].cast("Q")
        self.brakes = self._view[HEAD_WORDS * WORD :][: MAX_BRAKES * BRAKE.size]
        self.parker_origins = self._view[mmap.PAGESIZE :][: 4 * ORIGINS].cast("I")
        self.bans = self._view[self._bans_at :][: MAX_BANS * BAN.size]
        self.awaited = self._view[self._awaited_at :][: MOST_AWAITED * AWAITED.size]
        self.rates = self._view[self._rates_at :].cast("Q")
        self._words: dict[int, memoryview] = {}

    @property
    def used_slots(self) -> range:
        """The numbers of the slots that are in use; whatever the head says, no more than there are."""
        return range(min(self.head[SLOTS], MAX_WORKERS))

    def words(self, number: int) -> memoryview:
        """Return the words of a slot."""
        words = self._words.get(number)
        if words is None:
            words = self._words[number] = self.slot(number)[1]
        return words

    def held_by_workers(self) -> int:
        """Return how many connections all workers hold."""
        return sum(count_in(self.words(number), HELD) for number in self.used_slots)

    def busy_workers(self) -> int:
        """Return how many workers serve a client, or are about to."""
        return sum(self.words(number)[STATE] == State.TAKEN for number in self.used_slots)

    def connections_from(self, origin: int) -> int:
        """Return how many connections that come from there the parker and all workers hold."""
        at = origin % ORIGINS
        counts = [self.origins(number)[at] for number in self.used_slots]
        return int(self.parker_origins[at]) + sum(counts)

    def origins(self, number: int) -> memoryview:
        """Return the counts of a worker's connections by their origins."""
        begin = self._begin + number * self._size + self._origins_at
        return self._view[begin : begin + 2 * ORIGINS].cast("H")

    def slot(self, number: int) -> tuple[memoryview, memoryview, memoryview]:
        """Return a slot's bytes, its words, and those of its published connections."""
        begin = self._begin + number * self._size
        view = self._view[begin : begin + self._size]
        words = LINE_BYTES + SLOT_WORDS * WORD
        published = view[words : words + PLACE_WORDS * self._held * WORD]
        return view, view[LINE_BYTES:words].cast("Q"), published.cast("Q")

    def announced(self, number: int) -> memoryview:
        """Return where a worker writes what proxies have said of its published connections."""
        begin = self._begin + number * self._size + self._announced_at
        return self._view[begin : begin + self._held * ANNOUNCED.size]

    def protect(self, number: int) -> None:
        """Make all slots but one read-only in this process, which is the slot's worker."""
        begin = self._begin + number * self._size
        make_read_only(self.page, 0, begin)
        if number + 1 < MAX_WORKERS:
            make_read_only(self.page, begin + self._size, self._rates_at)


def _whole_pages(size: int) -> int:
    return -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
