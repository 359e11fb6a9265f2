"""Deadlines: what is to be done about a request that runs long, and when.

A request passes through the steps below in order; each is taken once. A request is charged only for
time in which the master was running: after a stop of the master (SIGSTOP, a busy machine) the
requests get back what they could not have been watched for.
"""

from __future__ import annotations

from collections import deque
from enum import IntEnum

from attrs import define, frozen

DUMP_NS = 20_000_000
"""Between asking for the stack of a stuck process and reading it; it takes 0.6 to 11 ms."""
STALL_NS = 250_000_000
"""A master that is later than this was not running."""
_MOST_STALLS = 1024


class Step(IntEnum):
    """What is done about a request in hand, from the mildest to the last."""

    NONE = 0
    ASK_SLOW = 1  # ask for the stack of a slow request ...
    TELL_SLOW = 2  # ... and log it; the request goes on
    RAISE = 3  # raise RequestTimeout in the handler
    ASK_STUCK = 4  # it did not help: ask for the stack ...
    KILL = 5  # ... log it, kill the worker, tell the client


@frozen
class Rules:
    """The settings that deadlines depend on, in nanoseconds; a limit comes with each request."""

    slow_ns: int
    grace_ns: int


@define
class Escalation:
    """One request that is watched.

    Attributes:
        number: Which of the worker's requests it is; the first is 1.
        step: The last step that was taken.
    """

    number: int = 0
    step: Step = Step.NONE

    def due(self, limit_ns: int, rules: Rules) -> tuple[Step, int] | None:
        """Return the next step and after how much running time it is due, or None: none is left.

        Args:
            limit_ns: When the request is overdue; 0: never.
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
    """When the master was not running."""

    def __init__(self) -> None:
        self._stalls: deque[tuple[int, int]] = deque(maxlen=_MOST_STALLS)

    def stalled(self, from_ns: int, to_ns: int) -> bool:
        """Note that the master should have run from one moment on, but ran only at the other.

        Returns whether what was not known of that yet was long enough to count by itself.
        """
        known_ns = self._stalls[-1][1] if self._stalls else from_ns
        new_ns = to_ns - max(from_ns, known_ns)
        if to_ns - from_ns < STALL_NS or new_ns <= 0:
            return False
        self._stalls.append((to_ns - new_ns, to_ns))
        return new_ns >= STALL_NS

    def charged(self, started_ns: int, now_ns: int) -> int:
        """Return how long something has run, without the time that nobody watched it."""
        lost_ns = 0
        for begin_ns, end_ns in reversed(self._stalls):
            if end_ns <= started_ns:
                break
            lost_ns += end_ns - max(begin_ns, started_ns)
        return now_ns - started_ns - lost_ns
