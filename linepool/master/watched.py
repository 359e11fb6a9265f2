"""What the master's loop serves beside its workers, such as the control socket."""

from __future__ import annotations

import selectors
from typing import Protocol as Interface


class Kept(Interface):
    """A process that something watched keeps alive."""

    @property
    def pid(self) -> int | None:
        """Its pid; None: there is none now."""


class Watched(Interface):
    """Something else that the master's loop waits for.

    Attributes:
        due_at: When to call ``turn``, on the monotonic clock; infinite: there is nothing to do.
    """

    due_at: float

    def open(self, selector: selectors.BaseSelector) -> None:
        """Register descriptors; their ``data`` is called without arguments when one is ready."""

    def turn(self) -> None:
        """Do what is due."""

    def close(self) -> None:
        """End it, in the master."""

    def abandon(self) -> None:
        """Close a new worker's copies of its descriptors."""
