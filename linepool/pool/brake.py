"""The brake: which commands are refused for a while because workers died of them. Pure.

By command alone, not by command and client: what is broken is the command's handler, its requests may be
retried from any address, and of a worker that has crashed the master does not know the client.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from attrs import Factory, asdict, define


@define
class _History:
    """When workers died of a command within the window, and until when it is refused; 0: never yet."""

    deaths: list[float] = Factory(list)
    until: float = 0.0


class Brake:
    """The deaths of workers, by the command that they were running.

    After its pause a command is on trial for as long as the window: one more death is enough then. All
    times are in seconds.

    Args:
        deaths: How many deaths within the window brake a command; 0: none do.
        window: How long a death counts.
        pause: How long a braked command is refused.

    Attributes:
        braked: The commands that are refused, and until when.
    """

    def __init__(self, deaths: int, window: float, pause: float) -> None:
        self.braked: dict[str, float] = {}
        self._most = deaths
        self._window = window
        self._pause = pause
        self._histories: dict[str, _History] = {}

    def configure(self, deaths: int, window: float, pause: float) -> None:
        """Follow other limits from now on; for the arguments, see the class."""
        self._most = deaths
        self._window = window
        self._pause = pause

    def as_json(self) -> dict[str, Any]:
        """Return what it knows, for another process; the limits are left out."""
        histories = {command: asdict(history) for command, history in self._histories.items()}
        return {"braked": self.braked, "histories": histories}

    def load(self, facts: Mapping[str, Any]) -> None:
        """Take over what another process knew."""
        self.braked.update(facts["braked"])
        for command, history in facts["histories"].items():
            self._histories[command] = _History(list(history["deaths"]), history["until"])

    def died(self, command: str, now: float) -> bool:
        """Count a worker that died of a command; return whether the command is refused from now on."""
        if not self._most:
            return False
        history = self._histories.setdefault(command, _History())
        history.deaths = [at for at in history.deaths if at > now - self._window] + [now]
        on_trial = 0 < history.until <= now < history.until + self._window
        if command in self.braked or (len(history.deaths) < self._most and not on_trial):
            return False
        self.braked[command] = history.until = now + self._pause
        return True

    def deaths(self, command: str) -> int:
        """Return how many deaths of a command counted at its last one."""
        return len(self._histories[command].deaths)

    def release(self, now: float) -> list[str]:
        """Return the commands whose pause is over; they are refused no longer."""
        released = [command for command, until in self.braked.items() if until <= now]
        for command in released:
            del self.braked[command]
        return released

    @property
    def due_at(self) -> float:
        """When the next pause is over; infinite: there is none."""
        return min(self.braked.values(), default=math.inf)
