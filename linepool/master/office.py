"""What the master has done for it by what has started it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from typing import Protocol as Interface

from linepool.ipc.incidents import IncidentMemory
from linepool.kernel.program import Program
from linepool.master.loader_handle import LoaderHandle
from linepool.master.spawner import Part
from linepool.settings import Settings


class Office(Interface):
    """What has started the master."""

    @property
    def program(self) -> Program | None:
        """What this process was started as; None: it cannot be started anew."""

    @property
    def resolved(self) -> Program | None:
        """What the names in it led to when it was started."""

    @property
    def incidents(self) -> IncidentMemory:
        """The memory of the incidents."""

    @property
    def told(self) -> Mapping[str, Any]:
        """What another program must be told before it knows the state that it takes over; JSON."""

    @property
    def is_quiet(self) -> bool:
        """Whether ``handed_over`` would lose nothing."""

    def handed_over(self) -> dict[str, Part]:
        """Return what another program needs to take over what is not the master's own, by name."""

    def start_loader(self, close_inherited: Callable[[], None]) -> LoaderHandle:
        """Start a loader for the code as it is now.

        Args:
            close_inherited: Called in a loader that is a fork: closes its copies of what is the master's.

        Raises:
            OSError: There are no descriptors or processes left.
        """

    def become_user(self) -> None:
        """Have this process, a new helper, become the user that serves."""

    def log_limit(self) -> Part | None:
        """Return the limit of the log, to be handed over; None: it has none."""

    def configure_log(self, settings: Settings) -> None:
        """Have the log follow other settings."""
