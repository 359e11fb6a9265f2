"""Where a schedule's choices come from: a seed, or a recording. In all of them 0 is the plain choice.

So a recording with more zeros is a simpler schedule: that is how ``shrink`` works.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable

_MOST_STEPS = 1 << 30


class Choices:
    """The choices of one schedule.

    Args:
        seed: What they follow from.
        recorded: Those of an earlier schedule, in their order; behind their end all are 0.

    Attributes:
        taken: Those so far.
        random: What they come from.
    """

    def __init__(self, seed: int = 0, recorded: list[int] | None = None) -> None:
        self.taken: list[int] = []
        self.random = random.Random(seed)
        self._draw = self.random.random
        self._recorded = recorded

    def below(self, count: int) -> int:
        """Return a number from 0 to ``count`` - 1, each as likely as another."""
        value = int(self._draw() * count)
        if self._recorded is not None:
            return self._take(value, count)
        self.taken.append(value)
        return value

    def chance(self, probability: float) -> bool:
        """Return whether something unlikely happens."""
        return self._take(int(self._draw() < probability), 2) != 0

    def steps(self, mean: int) -> int:
        """Return a number of steps from 1, that many in the mean; 0: as many as there are."""
        value = 1 + int(-math.log(1.0 - self._draw()) * mean)
        if self._recorded is not None:
            return self._take(value, _MOST_STEPS)
        self.taken.append(value)
        return value

    def _take(self, value: int, count: int) -> int:
        if self._recorded is not None:
            at = len(self.taken)
            value = self._recorded[at] % count if at < len(self._recorded) else 0
        self.taken.append(value)
        return value


def shrink(recorded: list[int], fails: Callable[[list[int]], bool], most: int) -> list[int]:
    """Return choices with as many zeros as can be found with which a schedule still fails.

    Args:
        recorded: With these it fails.
        fails: Whether it fails with others.
        most: How many schedules to try.
    """
    tries = 0
    size = max(1, len(recorded) // 2)
    while size and tries < most:
        at, has_changed = 0, False
        while at < len(recorded) and tries < most:
            part = recorded[at : at + size]
            if any(part):
                tries += 1
                fewer = [*recorded[:at], *[0] * len(part), *recorded[at + size :]]
                if fails(fewer):
                    recorded, has_changed = fewer, True
            at += size
        while recorded and not recorded[-1]:
            recorded.pop()
        if not has_changed or size > 1:
            size //= 2
    return recorded
