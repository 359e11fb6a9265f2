"""The figures as they are read: the rows of all slots together."""

from __future__ import annotations

from attrs import frozen

from linepool.ipc.figures.buckets import BUCKETS, quantile_ns
from linepool.ipc.figures.memory import Figures
from linepool.ipc.figures.words import (
    BLOCK_WORDS,
    BLOCKS,
    FIRST_BUCKET,
    FIRST_COMMAND,
    MALFORMED,
    MOST_SLOW,
    OTHER,
    QUEUE,
    RESULTS,
    SLOW,
    SUM_NS,
    UNKNOWN,
    WORD,
)


@frozen
class CommandFigures:
    """What has happened with one command since the start of the server.

    Attributes:
        name: The command's; that of its app before it, if there are several.
        sum_ns: The time that all took together.
        failed: How many ended in another way than with a value, by the name of that way.
        buckets: How many took how long; see ``buckets``.
    """

    name: str
    sum_ns: int
    failed: dict[str, int]
    buckets: tuple[int, ...]

    @property
    def count(self) -> int:
        """How many requests there were."""
        return sum(self.buckets)

    @property
    def ok(self) -> int:
        """How many of them have ended with a value."""
        return max(0, self.count - sum(self.failed.values()))

    def since(self, before: CommandFigures) -> CommandFigures:
        """Return what has happened since an earlier look."""
        return CommandFigures(
            self.name,
            self.sum_ns - before.sum_ns,
            {name: count - before.failed[name] for name, count in self.failed.items()},
            tuple(now - then for now, then in zip(self.buckets, before.buckets, strict=True)),
        )

    def quantile_ns(self, share: float) -> int:
        """Return how long a share of the requests took at most, in ns; 0: there are none."""
        return quantile_ns(self.buckets, share)


@frozen
class SlowRequest:
    """A request that took long.

    Attributes:
        began_ns: When it began, on the monotonic clock.
        result: How it has ended; see ``failures``.
    """

    command: str
    client: str
    began_ns: int
    took_ns: int
    result: str


class Reader:
    """Reads the figures.

    Args:
        figures: Their memory.
    """

    def __init__(self, figures: Figures) -> None:
        self._figures = figures

    def commands(self, slots: int) -> list[CommandFigures]:
        """Return the figures of each command that was ever served, and of what is none.

        Args:
            slots: How many there are; those from there on have never been used.
        """
        blocks = self._blocks()
        words = self._added(slots, FIRST_COMMAND + len(blocks))
        names = {OTHER: "(other)", UNKNOWN: "(unknown)", MALFORMED: "(malformed)"}
        names |= {block: name for name, block in blocks.items()}
        return [_of_block(words, block, names[block]) for block in sorted(names)]

    def queue(self, slots: int) -> CommandFigures:
        """Return how long requests have waited for a worker."""
        return _of_block(self._added(slots, FIRST_COMMAND), QUEUE, "")

    def slowest(self, slots: int, since_ns: int) -> list[SlowRequest]:
        """Return the slowest requests that have ended since then, the slowest first."""
        names = {block: name for name, block in self._blocks().items()}
        found = []
        for number in range(slots + 1):
            entries = self._figures.row(number)[BLOCKS * BLOCK_WORDS * WORD :]
            for place in range(MOST_SLOW):
                entry = SLOW.unpack_from(entries, place * SLOW.size)
                took_ns, began_ns, block, result, client = entry
                if took_ns and began_ns + took_ns >= since_ns and result < len(RESULTS):
                    name = names.get(block, "(unknown)" if block == UNKNOWN else "(other)")
                    peer = client.rstrip(b"\0").decode("utf-8", "replace")
                    found.append(SlowRequest(name, peer, began_ns, took_ns, RESULTS[result]))
        return sorted(found, key=lambda one: -one.took_ns)

    def _blocks(self) -> dict[str, int]:
        return self._figures.names()

    def _added(self, slots: int, blocks: int) -> memoryview:
        """Return the words of the first blocks, each the sum of those in all rows."""
        size = blocks * BLOCK_WORDS * WORD
        # Each row as one number: to add the words one by one takes four times as long.
        rows = (self._figures.row(number)[:size] for number in range(slots + 1))
        total = sum(int.from_bytes(row, "little") for row in rows)
        return memoryview((total % (1 << 8 * size)).to_bytes(size, "little")).cast("Q")


def _of_block(words: memoryview, block: int, name: str) -> CommandFigures:
    at = block * BLOCK_WORDS
    failed = {result: words[at + number] for number, result in enumerate(RESULTS) if number}
    buckets = tuple(words[at + FIRST_BUCKET : at + FIRST_BUCKET + BUCKETS])
    return CommandFigures(name, words[at + SUM_NS], failed, buckets)
