"""Recycling: which workers may be replaced because they have served, grown or aged enough.

Never more than a third of the pool at once (of a small pool, one). A worker that has served its
number of requests leaves by itself, at once, but only with a permit; the permits go to those that
are nearest to their number.
"""

from __future__ import annotations

from collections.abc import Iterable

from attrs import frozen


@frozen
class Wear:
    """How worn one worker is.

    Attributes:
        share: Of its number of requests, age or memory, whichever is used up most; 1.0: all of it.
        away: It counts towards the third: it is on its way out, still starting, or may leave at any
            time, for it has a permit.
        settled: It is on its way out, or has a permit already.
    """

    slot: int
    share: float
    away: bool
    settled: bool


def replaceable(workers: Iterable[Wear]) -> list[int]:
    """Return the slots of those that may be replaced now, the most worn first."""
    everyone = list(workers)
    free = max(1, len(everyone) // 3) - sum(wear.away for wear in everyone)
    chosen: list[int] = []
    for wear in sorted(everyone, key=lambda wear: wear.share, reverse=True):
        if wear.settled:
            continue
        free -= not wear.away
        if free < 0:
            break
        chosen.append(wear.slot)
    return chosen
