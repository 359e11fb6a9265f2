"""What the master's loop works with: made when it begins, closed when it ends, and in new helper processes.

Runs in the master, and in each new parker and loader until that begins its work.
"""

from __future__ import annotations

import time

from linepool.ipc.board import MasterView
from linepool.ipc.figures import Figures
from linepool.kernel.event_set import new_selector
from linepool.kernel.listeners import Listener
from linepool.kernel.signals import SignalPipe
from linepool.master.generation import Generation
from linepool.master.incidents import PARKER_DIED, RELOAD_FAILED, Incidents
from linepool.master.load import LoadMeter
from linepool.master.lost_requests import LostRequests
from linepool.master.observing import Observing
from linepool.master.office import Office
from linepool.master.outcome import Outcome
from linepool.master.parker_handle import ParkerHandle
from linepool.master.pool import Pool
from linepool.master.recycler import Recycler
from linepool.master.spawner import Spawner
from linepool.master.status_reader import StatusReader
from linepool.master.stopped import StoppedChildren
from linepool.master.timeouts import Timeouts
from linepool.master.trace import TraceWriter
from linepool.master.watchdog import Watchdog
from linepool.master.watched import Watched
from linepool.master.withheld import WithheldEdges
from linepool.master.worker_handle import WorkerHandle
from linepool.pool.brake import Brake
from linepool.pool.scoreboard import Scoreboard


class Parts:
    """The parts of the master.

    Args:
        generations: Those that have workers or a loader; the list changes in place.
        listeners: The server's; the list changes in place.
        board: Shared with all processes.
        signals: Noted for the loop.
        watched: What the loop serves besides; the list changes in place.
        trace: Of the connections, if one is written.
        office: Has the limit of the log, and knows the user that serves.
    """

    def __init__(
        self,
        *,
        generations: list[Generation],
        listeners: list[Listener],
        board: MasterView,
        signals: SignalPipe,
        watched: list[Watched],
        trace: TraceWriter | None,
        office: Office,
    ) -> None:
        generation = generations[-1]
        settings = generation.settings
        self.selector = new_selector()
        self.scoreboard = Scoreboard()
        self.workers: dict[int, WorkerHandle] = {}
        self.incidents = Incidents(office.incidents)
        self.load = LoadMeter(settings, board, listeners, self.incidents)
        self.reader = StatusReader(
            board,
            self.scoreboard,
            self.selector,
            lambda: self.load.history.restart(time.monotonic_ns()),
        )
        self.withheld = WithheldEdges(board, self.scoreboard, self.load.history)
        self.recycler = Recycler(settings, board)
        self.parker: ParkerHandle | None = None
        if settings.has_parker:
            self.parker = ParkerHandle(
                board,
                generation.facts,
                settings,
                listeners,
                self.workers,
                self.selector,
                self.begin_parker,
            )
            self.parker.on_death = self._note_parkers_death
        self.figures = Figures()
        self.watchdog = Watchdog(
            board,
            self.selector,
            self.parker.adopt if self.parker else None,
            self.incidents,
            Timeouts(board, self.figures, self.incidents),
        )
        self.spawner = Spawner(board, self.figures, office.log_limit)
        self.observing = Observing(generation, self.selector)
        self.pool = Pool(
            board=board,
            scoreboard=self.scoreboard,
            workers=self.workers,
            selector=self.selector,
            spawner=self.spawner,
            reader=self.reader,
            load=self.load,
            recycler=self.recycler,
            lost=LostRequests(self.figures),
            watchdog=self.watchdog,
            parker=self.parker,
            stopped=StoppedChildren(settings.stopped_timeout, self.watchdog.stalls),
            observing=self.observing,
            incidents=self.incidents,
            brake=Brake(settings.poison_deaths, settings.poison_window, settings.poison_pause),
        )
        self.trace = trace
        self._listeners = listeners
        self._signals = signals
        self._watched = watched
        self._generations = generations
        self._office = office

    def open(self) -> None:
        """Have the loop serve what there is."""
        for watched in self._watched:
            watched.open(self.selector)
        for generation in self._generations:
            if generation.loader.is_open:
                generation.loader.watch(self.selector, self.pool)

    @property
    def helpers(self) -> dict[str, int | None]:
        """The pids of parker and observer; None: there is none now."""
        parkers = self.parker.processes if self.parker else []
        parker = next((one.pid for one in parkers), None)
        return {"parker": parker, "observer": self.observing.pid}

    def configure(self, generation: Generation, opened: list[Listener]) -> None:
        """Follow another generation.

        Args:
            generation: The one in force from now on.
            opened: The listeners that are new.
        """
        settings = generation.settings
        self.load.configure(settings)
        self.recycler.configure(settings)
        self.pool.configure(settings)
        self.observing.configure(generation)
        if self.parker is not None:
            self.parker.configure(generation.facts, settings, opened)

    def reloaded(self, outcome: Outcome) -> None:
        """Note how a reload has ended."""
        if outcome.failure:
            generation = outcome.generation
            self.incidents.note(RELOAD_FAILED, generation=generation, why=outcome.failure)
        self.observing.reloaded(outcome)

    def _note_parkers_death(self, how: str) -> None:
        name, _, value = how.partition("=")
        is_signal = name == "signal"
        self.incidents.note(
            PARKER_DIED,
            signal=value if is_signal else None,
            status=None if is_signal else int(value),
        )

    def close(self) -> None:
        """Kill what is left of the processes, and close everything, in the master."""
        for watched in self._watched:
            watched.close()
        for worker in self.workers.values():
            worker.process.kill()
            worker.close()
        self.watchdog.close()
        if self.parker is not None:
            self.parker.close()
        for generation in self._generations:
            generation.loader.close()
        for ends in self.pool.births.values():
            ends.close()
        self.spawner.close()
        if self.trace is not None:
            self.trace.close()
        for listener in self._listeners:
            listener.remove()
        self.reader.close()
        self.incidents.close()
        self.selector.close()
        self._signals.close()

    def send_signals_again(self) -> None:
        """Leave the signals that have come to the next program; see ``SignalPipe``."""
        self._signals.send_again()

    def begin_parker(self) -> None:
        """Make a new process ready to be the parker: the user that serves, without what is the master's."""
        self._close_in_helper()
        self.figures.file.close()
        self._office.become_user()

    def close_in_loader(self) -> None:
        """Close the copies of a new loader that is a fork of the master."""
        self._close_in_helper()
        for worker in self.workers.values():
            worker.channel.close()
        if self.parker is not None:
            self.parker.abandon()
        for listener in self._listeners:
            listener.close()

    def _close_in_helper(self) -> None:
        """Close a new helper's copies, except the channels of the workers."""
        self._signals.abandon()
        self.selector.close()
        self.reader.close()
        self.watchdog.close()
        self.incidents.close()
        if self.trace is not None:
            self.trace.close()
        for watched in self._watched:
            watched.abandon()
        self.spawner.close()
        for generation in self._generations:
            generation.loader.abandon()
        for ends in self.pool.births.values():
            ends.close()
        for worker in self.workers.values():
            worker.close_all_but_channel()
