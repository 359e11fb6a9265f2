"""How a reload has ended. Used by the master, and by what reports on it."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection

from attrs import frozen

log = logging.getLogger("linepool")

_NAMED = 3  # changed files in a line of the log


@frozen
class Outcome:
    """How a reload has ended.

    Attributes:
        generation: The number of the generation in force.
        workers: How many workers it has.
        seconds: How long the reload took.
        failure: Why it failed; "": it did not.
    """

    generation: int
    workers: int
    seconds: float
    failure: str = ""

    def __str__(self) -> str:
        if self.failure:
            return self.failure
        workers = f"{self.workers} worker{'s' * (self.workers != 1)}"
        return f"generation {self.generation}, {workers}, {self.seconds:.2f} s"

    def log(self, changed: Collection[str]) -> None:
        """Log it.

        Args:
            changed: The files because of which it was begun; empty: it was ordered.
        """
        why = f"changed={_shown(changed)} " if changed else ""
        if self.failure:
            log.error(
                "reload failed, generation %d stays: %s%s", self.generation, why, self.failure
            )
        else:
            log.info("reloaded %s%s", why, self)


def _shown(files: Collection[str]) -> str:
    """Return the names of files, as seen from the working directory; of many, the first few."""
    names = sorted(os.path.relpath(file) for file in files)
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


Answer = Callable[[Outcome], None]
"""Is called when it has ended."""
