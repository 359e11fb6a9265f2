"""Recycling: which workers may be replaced because they have served, grown or aged enough.

Never more than a third of the pool at once (of a small pool, one). A worker that has served its
number of requests leaves by itself, at once, but only with a license; the licenses go to those that
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
        leaving: It is on its way out, or has a license.
    """

    slot: int
    share: float
    leaving: bool


def licensed(workers: Iterable[Wear]) -> list[int]:
    """Return the slots of those that may be replaced now, the most worn first."""
    everyone = list(workers)
    free = max(1, len(everyone) // 3) - sum(wear.leaving for wear in everyone)
    rest = sorted((w for w in everyone if not w.leaving), key=lambda w: w.share, reverse=True)
    return [wear.slot for wear in rest[: max(0, free)]]
