"""The other workers, as the board shows them: who is free, and who has time left.

Runs in workers, which decide by it whether to hand connections on.
"""

from __future__ import annotations

from linepool.ipc.board import FREE_NS, HELD, ORDER, SLOTS, WAITED_NS, Board

_REALLY_FREE_NS = 10_000_000  # who waits for so long is not only between two requests, or turns
_COMPARE_EVERY_NS = 5_000_000  # between two looks at the load
_NO_TIME_LEFT = 0.1  # of a worker's time is spent waiting
_SOME_TIME_LEFT = 0.25  # likewise


class Neighbours:
    """The workers beside the one in a slot."""

    def __init__(self, board: Board, ours: int) -> None:
        self._slots = board.slots
        self._head = board.head
        self._ours = ours
        self._looked_ns = 0  # when the load was last looked at ...
        self._we_waited_ns = 0  # ... and how long we had waited by then ...
        self._they_waited: dict[int, int] = {}  # ... and the others, if we have looked

    def held(self) -> int:
        """Return how many connections the workers hold, this one too."""
        return sum(self._slots[number].words[HELD] for number in range(self._head[SLOTS]))

    def free(self, now_ns: int) -> int:
        """Return how many have nothing to do."""
        count = 0
        for number in range(self._head[SLOTS]):
            words = self._slots[number].words
            since_ns = words[FREE_NS]
            if since_ns and now_ns - since_ns > _REALLY_FREE_NS and number != self._ours:
                count += not words[ORDER]
        return count

    def with_time_left(self, now_ns: int) -> list[int]:
        """Return how many connections those hold who have time left; none, if we have some too.

        What counts is the time since the last look; for a while after one, there is no other. Who has
        time left does not look at the others: that would take the longer the more workers there are.
        """
        elapsed_ns = now_ns - self._looked_ns
        if elapsed_ns < _COMPARE_EVERY_NS:
            return []
        before_ns, self._we_waited_ns = self._we_waited_ns, self._waited_ns(self._ours, now_ns)
        self._looked_ns = now_ns
        they_waited, self._they_waited = self._they_waited, {}
        if self._we_waited_ns - before_ns > _NO_TIME_LEFT * elapsed_ns:
            return []
        slots = self._slots
        free = []
        for number in range(self._head[SLOTS]):
            self._they_waited[number] = waited_ns = self._waited_ns(number, now_ns)
            since_ns = waited_ns - they_waited.get(number, waited_ns)
            if since_ns > _SOME_TIME_LEFT * elapsed_ns and not slots[number].words[ORDER]:
                free.append(slots[number].words[HELD])
        return free

    def _waited_ns(self, number: int, now_ns: int) -> int:
        """Return for how long a worker has waited for work so far."""
        words = self._slots[number].words
        waits_since_ns: int = words[FREE_NS]
        waited_ns: int = words[WAITED_NS]
        return waited_ns + (now_ns - waits_since_ns if waits_since_ns else 0)
