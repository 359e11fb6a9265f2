"""What a reload uses of the master."""

from __future__ import annotations

from typing import Protocol as Interface

from linepool.kernel.listeners import Listener
from linepool.master.generation import Generation
from linepool.master.loader_handle import LoaderHandle
from linepool.master.pool import Pool


class Reloadable(Interface):
    """The master, as far as reloads are concerned; see there."""

    generation: Generation
    generations: list[Generation]
    listeners: list[Listener]
    stopping: bool
    is_drained: bool
    pool: Pool

    def start_loader(self) -> LoaderHandle:
        """Start a loader for the code as it is now; raises OSError."""

    def switch_to(self, generation: Generation, listeners: list[Listener]) -> None:
        """Put a generation in force."""
