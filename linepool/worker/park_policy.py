"""When a connection that a worker holds has gone cold, and is to be parked.

Runs in workers. To park a connection and to fetch it back costs several times what a quick request
does, and spares its client nothing while the worker has time. So where requests are quick, a client
that comes back soon after it was parked is kept for longer from then on: for twice as long as it was
quiet. Where they take long it is parked as early as any other, for then whoever is free serves it.
"""

from __future__ import annotations

from linepool.ipc.board import HANDLER_NS, REQUESTS

_SOON = 0.5  # seconds; who was quiet for longer is not expected back
_QUICK_NS = 200_000  # a request takes less than to pass its connection to another process
_EVERY = 0.25  # seconds between two looks at what requests take


class Cooling:
    """What one worker goes by.

    Args:
        words: The worker's slot.
        park_after: The setting; in seconds.
    """

    def __init__(self, words: memoryview, park_after: float) -> None:
        self._words = words
        self._park_after = park_after
        self._is_quick = True  # nothing else is known yet
        self._look_at = 0.0
        self._requests = self._spent_ns = 0  # at the last look

    def look(self, now: float) -> None:
        """See what requests take."""
        if now < self._look_at:
            return
        self._look_at = now + _EVERY
        requests, spent_ns = self._words[REQUESTS], self._words[HANDLER_NS]
        if requests > self._requests:
            mean_ns = (spent_ns - self._spent_ns) / (requests - self._requests)
            self._is_quick = mean_ns < _QUICK_NS
        self._requests, self._spent_ns = requests, spent_ns

    def cold_at(self, quiet_since: float, was_quiet: float) -> float:
        """Return when a connection is cold.

        Args:
            quiet_since: When its client was served last.
            was_quiet: For how long it had been quiet when it came back from the parker; 0.0: it was
                never there.
        """
        keep = self._park_after
        if self._is_quick and keep < 2 * was_quiet and was_quiet < _SOON:
            keep = 2 * was_quiet
        return quiet_since + keep
