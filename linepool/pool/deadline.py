"""Deadlines: which step to take against a long-running request, and when.

A request passes through the steps below in order; each is taken once. Only time in which the
master was running counts towards a timeout: periods in which it was not (SIGSTOP, an overloaded
machine) are subtracted.
"""

from __future__ import annotations

from collections import deque
from enum import IntEnum

from attrs import define, frozen

DUMP_NS = 20_000_000
"""Between requesting the stack of a stuck process and reading it; it takes 0.6 to 11 ms to write."""
STALL_NS = 250_000_000
"""A master that wakes up later than this was not running."""
_MAX_STALLS = 1024


class Step(IntEnum):
    """The steps against an in-flight request, from the mildest to the last."""

    NONE = 0
    ASK_SLOW = 1  # request the stack of a slow handler ...
    TELL_SLOW = 2  # ... and log it; the handler continues
    RAISE = 3  # raise RequestTimeout in the handler
    ASK_STUCK = 4  # it is still running: request the stack ...
    KILL = 5  # ... log it, kill the worker, send the client an error reply


@frozen
class Rules:
    """The settings that deadlines depend on, in nanoseconds; the time limit is per request."""

    slow_ns: int
    grace_ns: int


@define
class Escalation:
    """How far the escalation of one request has got.

    Attributes:
        number: Counts the worker's requests; the first is 1.
        step: The last step taken.
    """

    number: int = 0
    step: Step = Step.NONE

    def due(self, limit_ns: int, rules: Rules) -> tuple[Step, int] | None:
        """Return the next step and the running time after which it is due; None: no step is left.

        Args:
            limit_ns: Running time after which the request is overdue; 0: no limit.
            rules: The settings.
        """
        steps: list[tuple[Step, int]] = []
        if rules.slow_ns and (not limit_ns or rules.slow_ns < limit_ns):
            steps += [(Step.ASK_SLOW, rules.slow_ns), (Step.TELL_SLOW, rules.slow_ns + DUMP_NS)]
        if limit_ns:
            stuck_ns = limit_ns + rules.grace_ns
            steps += [
                (Step.RAISE, limit_ns),
                (Step.ASK_STUCK, stuck_ns),
                (Step.KILL, stuck_ns + DUMP_NS),
            ]
        return next((step for step in steps if step[0] > self.step), None)


class StallLog:
    """The periods in which the master was not running."""

    def __init__(self) -> None:
        self._stalls: deque[tuple[int, int]] = deque(maxlen=_MAX_STALLS)

    def stalled(self, from_ns: int, to_ns: int) -> bool:
        """Record that the master should have run at ``from_ns``, but ran only at ``to_ns``.

        Returns:
            Whether the part that was not recorded before is a stall by itself.
        """
        known_ns = self._stalls[-1][1] if self._stalls else from_ns
        new_ns = to_ns - max(from_ns, known_ns)
        if to_ns - from_ns < STALL_NS or new_ns <= 0:
            return False
        self._stalls.append((to_ns - new_ns, to_ns))
        return new_ns >= STALL_NS

    def absent(self, from_ns: int, to_ns: int) -> None:
        """Record that the master could not run, however short that was."""
        self._stalls.append((from_ns, to_ns))

    @property
    def periods(self) -> list[tuple[int, int]]:
        """All of them, the earliest first: begin and end."""
        return list(self._stalls)

    def charged(self, started_ns: int, now_ns: int) -> int:
        """Return the running time, minus periods in which the master was not running."""
        lost_ns = 0
        for begin_ns, end_ns in reversed(self._stalls):
            if end_ns <= started_ns:
                break
            lost_ns += end_ns - max(begin_ns, started_ns)
        return now_ns - started_ns - lost_ns
