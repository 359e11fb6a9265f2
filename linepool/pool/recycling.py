"""Recycling: which workers may be replaced because of their requests, memory or age.

At most a third of the pool at once (at least one worker). A worker that has reached its number of
requests exits by itself, at once, but only with a permit; the permits go to the workers nearest to
their number.
"""

from __future__ import annotations

from collections.abc import Iterable

from attrs import frozen


@frozen
class Wear:
    """How near one worker is to its replacement.

    Attributes:
        share: The fraction used up of its request, age or memory limit, whichever is largest.
        away: Whether it counts towards the third: it is leaving, starting, or has a permit and may
            leave at any time.
        settled: Whether it is leaving or has a permit already.
    """

    slot: int
    share: float
    away: bool
    settled: bool


def replaceable(workers: Iterable[Wear]) -> list[int]:
    """Return the slots of the workers that may be replaced now, the most worn first."""
    all_workers = list(workers)
    free = max(1, len(all_workers) // 3) - sum(wear.away for wear in all_workers)
    chosen: list[int] = []
    for wear in sorted(all_workers, key=lambda wear: wear.share, reverse=True):
        if wear.settled:
            continue
        free -= not wear.away
        if free < 0:
            break
        chosen.append(wear.slot)
    return chosen
