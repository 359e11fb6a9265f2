"""The order for a worker: what connects it to the master is made here, and sent to the loader.

Runs in the master.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from typing import Any

from linepool.ipc import channel as channels
from linepool.ipc.board import MasterView
from linepool.ipc.figures import Figures
from linepool.ipc.letters import packed
from linepool.ipc.status_pipe import StatusPipe
from linepool.kernel.listeners import Listener
from linepool.kernel.pipes import counter
from linepool.kernel.rlimit import bus_regions, open_files_limit
from linepool.kernel.standard import with_high_number
from linepool.master.generation import Generation
from linepool.master.worker_handle import Ends, StackFiles
from linepool.pubsub.bus import Bus
from linepool.settings import Settings, as_texts

Part = tuple[dict[str, Any], list[int]]


class Spawner:
    """Has loaders fork workers.

    Args:
        board: Shared by all workers.
        figures: Likewise.
        log_limit: Returns the limit of the log, to be handed over; None: it has none.

    Attributes:
        stack_files: Those of all slots.
    """

    def __init__(
        self,
        board: MasterView,
        figures: Figures,
        log_limit: Callable[[], Part | None],
    ) -> None:
        self._board = board
        self._figures = figures
        self._log_limit = log_limit
        self.stack_files = StackFiles()
        self._bus: Bus | None = None

    def bus_handed_over(self) -> Part | None:
        """Return the bus, to be handed over; None: there is none."""
        return self._bus.handed_over() if self._bus is not None else None

    @property
    def has_bus(self) -> bool:
        """Whether there is a bus."""
        return self._bus is not None

    def keep_bus(self) -> Bus | None:
        """Return the bus, which a new helper process keeps beyond ``close``."""
        bus, self._bus = self._bus, None
        return bus

    def take_over_bus(self, part: Part) -> None:
        """Go on with the bus that another program has handed over.

        Raises:
            ValueError, OSError: As ``Bus.taken_over``.
        """
        self._bus = Bus.taken_over(*part, with_high_number)

    def start(
        self,
        generation: Generation,
        listeners: Sequence[Listener],
        settings: Settings | None = None,
    ) -> None:
        """Give a loader what its workers share.

        Args:
            generation: What it has loaded.
            listeners: Where its workers accept.
            settings: What holds there; None: the generation's settings.

        Raises:
            OSError: It cannot be given to it.
        """
        settings = settings or generation.settings
        if generation.facts.publishes and self._bus is None:
            regions = bus_regions(settings.workers.max)
            self._bus = Bus(regions, with_high_number, has_bridge=bool(settings.bridge))
        self._figures.add_names(command.name for command in generation.facts.commands)
        parts = {
            "board": self._board.page.handed_over(),
            "figures": self._figures.handed_over(),
        }
        names = [f"listener {number}" for number in range(len(listeners))]
        for name, listener in zip(names, listeners, strict=True):
            parts[name] = listener.handed_over()
        if self._bus is not None:
            parts["bus"] = self._bus.handed_over()
        if log_limit := self._log_limit():
            parts["log"] = log_limit
        facts, descriptors = packed(parts)
        letter = {
            "generation": generation.number,
            "settings": as_texts(settings),
            "files": open_files_limit(),
            "parts": facts,
            "listeners": names,
        }
        generation.loader.send("START", letter, descriptors)

    def order(self, slot: int, generation: Generation, recycle_at: int) -> Ends:
        """Order a worker; return the master's ends of what connects it.

        Args:
            slot: Where it is to be.
            generation: What it is forked from.
            recycle_at: It leaves after this many requests, with a permit; 0: never.

        Raises:
            OSError: There are no descriptors left, or the loader does not read; nothing has changed.
        """
        with contextlib.ExitStack() as undo:
            pipe = StatusPipe()
            undo.callback(pipe.close)
            ours, theirs = channels.pair()
            undo.callback(ours.close)
            with theirs, contextlib.ExitStack() as sent:
                heard, bell = counter()
                if heard != bell:
                    sent.callback(os.close, heard)
                undo.callback(os.close, bell)
                stack_file = self.stack_files.of(slot)
                self._board.new_worker(slot)
                generation.loader.send(
                    "SPAWN",
                    {"slot": slot, "recycle_at": recycle_at},
                    [pipe.writer, theirs.fileno(), heard, stack_file],
                )
            undo.pop_all()
        pipe.keep_reader()
        return Ends(generation, pipe, ours, bell, stack_file)

    def reaped(self, slot: int) -> None:
        """Remove what a dead worker had subscribed to."""
        if self._bus is not None:
            self._bus.clear(slot)

    def close(self) -> None:
        """Close everything, also in a new helper process."""
        self.stack_files.close()
        if self._bus is not None:
            self._bus.close()
