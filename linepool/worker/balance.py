"""When a worker hands connections off: those that are idle, those that others would serve sooner.

Runs in workers. Makes no system call; the present is an argument. It knows no loop: it says what to do.

To park a connection and to fetch it back costs several times what a quick request does, and its client
gains nothing while the worker has time. So where requests are quick, a client that comes back soon
after it was parked is kept for longer from then on: for twice as long as it was quiet. Where requests
take long, it is parked as early as any other, because then any idle worker serves it.
"""

from __future__ import annotations

from collections.abc import Iterable

from linepool.core.rules import COMPARE_EVERY_NS
from linepool.ipc.board import WorkerView
from linepool.worker.connection import Connection

_SOON = 0.5  # seconds; a client that was quiet for longer is not expected back
_QUICK_NS = 200_000  # a request takes less than to pass its connection to another process
_MEASURE_EVERY = 0.25  # seconds between two looks at what requests take
_IDLE_NS = 10_000_000  # a worker that waits for this long is not only between two requests
_SATURATED = 0.1  # a worker that spends less of its time waiting has none left
_SPARE = 0.25  # a worker that spends more of its time waiting has some left
_MORE = (
    2  # connections above the mean with which a worker does not keep one that could not leave later
)
_AT_ONCE = 16  # connections that are handed off because of another worker


def share(held: int, others: int) -> int:
    """Return how many connections to hand off to a worker that has time left.

    Args:
        held: How many this worker holds.
        others: How many that one holds.
    """
    return min(max(1, (held - others) // 2), _AT_ONCE)


class ParkPolicy:
    """When an idle connection is parked.

    Args:
        board: Says what requests take.
        park_after: The setting; in seconds.
    """

    def __init__(self, board: WorkerView, park_after: float) -> None:
        self._board = board
        self._park_after = park_after
        self._is_quick = True  # nothing else is known yet
        self._measure_at = 0.0
        self._requests = self._spent_ns = 0  # at the last look

    def measure(self, now: float) -> None:
        """Look at what requests take."""
        if now < self._measure_at:
            return
        self._measure_at = now + _MEASURE_EVERY
        requests, spent_ns = self._board.work
        if requests > self._requests:
            mean_ns = (spent_ns - self._spent_ns) / (requests - self._requests)
            self._is_quick = mean_ns < _QUICK_NS
        self._requests, self._spent_ns = requests, spent_ns

    def park_at(self, quiet_since: float, was_quiet: float) -> float:
        """Return when a connection is to be parked.

        Args:
            quiet_since: When its client was served last.
            was_quiet: For how long it had been quiet when it came back from the parker; 0.0: it was
                never there.
        """
        keep = self._park_after
        if self._is_quick and keep < 2 * was_quiet and was_quiet < _SOON:
            keep = 2 * was_quiet
        return quiet_since + keep


class Siblings:
    """The other workers, as far as they could take connections."""

    def __init__(self, board: WorkerView) -> None:
        self._board = board
        self._compared_ns = 0  # when the load was last looked at ...
        self._own_ns = 0  # ... and how long this worker had waited by then ...
        self._waited_ns: dict[int, int] = {}  # ... and the others, if they were looked at

    def idle(self, now_ns: int) -> int:
        """Return how many wait for work."""
        return sum(
            bool(one.idle_since_ns and now_ns - one.idle_since_ns > _IDLE_NS)
            for _, one in self._board.siblings()
            if not one.is_leaving
        )

    def surplus(self, readable: int, now_ns: int) -> int:
        """Return how many of some readable connections idle workers would serve sooner."""
        idle = self.idle(now_ns)
        return readable * idle // (idle + 1)

    def hold_fewer(self, held: int) -> bool:
        """Return whether this worker, with so many connections, holds clearly more than the mean of all."""
        others = [one.held for _, one in self._board.siblings() if not one.is_leaving]
        return held >= (held + sum(others)) / (len(others) + 1) + _MORE

    def with_time_left(self, now_ns: int) -> list[int]:
        """Return how many connections the workers with time left hold.

        Empty if this worker has time left too. What counts is the time since the last look; for a
        while after a look it is empty as well.
        """
        elapsed_ns = now_ns - self._compared_ns
        if elapsed_ns < COMPARE_EVERY_NS:
            return []
        self._compared_ns = now_ns
        before_ns, self._own_ns = self._own_ns, self._board.waited_ns
        before, self._waited_ns = self._waited_ns, {}
        # A worker with time left does not look at the others: that takes the longer the more there are.
        if self._own_ns - before_ns > _SATURATED * elapsed_ns:
            return []
        found = []
        for number, one in self._board.siblings():
            waiting_ns = now_ns - one.idle_since_ns if one.idle_since_ns else 0
            self._waited_ns[number] = waited_ns = one.waited_ns + waiting_ns
            spare_ns = waited_ns - before.get(number, waited_ns)
            if spare_ns > _SPARE * elapsed_ns and not one.is_leaving:
                found.append(one.held)
        return found


def eviction_order(
    connections: Iterable[Connection], newcomer: Connection | None, now: float
) -> list[Connection]:
    """Return connections in the order in which they leave a worker that holds too many.

    Those that have been quiet longest leave first. But a newcomer from the parker that had been quiet
    for longer than any of them goes back: else, of more clients than fit that send requests in turn,
    each would push out the one that sends next.
    """
    by_age = sorted(connections, key=lambda one: one.quiet_since)
    if newcomer in by_age and newcomer.arrival.was_quiet > now - by_age[0].quiet_since:
        by_age.insert(0, newcomer)
    return by_age
