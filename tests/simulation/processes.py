"""The simulated master and parker, made of real parts as far as it goes.

Real are the master's loop and pool, its watchdog, its reloads, its handles of workers, loaders and parker;
the whole parker; a loader's loop; a worker's loop, connections, requests that wait, and its evacuation
thread. Models are what a loader loads, the forks, a listener, the end of the listeners in a stop, and how a
worker boots and exits.
"""

from __future__ import annotations

import functools
import math
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from linepool.ipc import channel as channels
from linepool.ipc.board import MasterView
from linepool.kernel.pidfd import ChildProcess
from linepool.master.generation import Generation
from linepool.master.helper import Helper
from linepool.master.load import LoadMeter
from linepool.master.master import Master
from linepool.master.orphans import Orphans
from linepool.master.parker_handle import ParkerHandle
from linepool.master.parts import Parts
from linepool.master.planned_drain import PlannedDrain
from linepool.master.pool import Pool
from linepool.master.recycler import Recycler
from linepool.master.reload import Reload
from linepool.master.spawner import Spawner
from linepool.master.status_reader import StatusReader
from linepool.master.takeover import Inherited
from linepool.master.upgrade import Upgrade
from linepool.master.watchdog import Watchdog
from linepool.master.withheld import WithheldEdges
from linepool.parker.parker import Parker
from linepool.pool.brake import Brake
from linepool.pool.scoreboard import Scoreboard
from tests.simulation import app as apps
from tests.simulation.calls import Selector
from tests.simulation.listeners import SimulatedDraining, SimulatedListener
from tests.simulation.machine import here
from tests.simulation.sockets import Socket

if TYPE_CHECKING:
    from tests.simulation.world import World

_TERM, _QUIT = 15, 3


class SimulatedHelper(Helper):
    """The parker's process: what a fork would copy is taken from the master."""

    def _start(self) -> None:
        world: World = self._world  # type: ignore[attr-defined]
        ours, theirs = channels.pair()
        if world.may_fail and world.kernel.choices.chance(0.02):
            ours.close()
            theirs.close()
            raise BlockingIOError(11, "no process left")
        master, parker = here(), world.kernel.fork("parker", here().pid)
        handle: Any = self._work.__self__  # type: ignore[attr-defined]
        channels_of = {slot: one.channel.fileno() for slot, one in handle._workers.items()}
        parker.fds = {
            number: master.fds[number] for number in (theirs.fileno(), *channels_of.values())
        }
        parker.fds[2000] = world.listener
        for file in parker.fds.values():
            file.refs += 1
        hub = theirs.fileno()
        world.kernel.start(parker, lambda: _run_parker(world, hub, channels_of, handle))
        theirs.close()
        self.process = ChildProcess(parker.pid)
        self._started_at = world.kernel.now_ns / 1e9
        world.parker = parker
        self._watch(ours)
        self._on_start()


def _run_parker(world: World, hub: int, channels_of: dict[int, int], handle: Any) -> None:
    ends: Any = {slot: Socket(fileno=number) for slot, number in channels_of.items()}
    to_master: Any = Socket(fileno=hub)
    listeners: Any = [SimulatedListener(world.listener, 2000)]
    parker: Any = Parker(
        world.board,
        to_master,
        ends,
        listeners,
        handle._settings,
        apps.facts,
    )
    here().facts = parker
    parker.run()


class SimulatedMaster(Master):
    """The master: its loop and parts are real; what is beside the pool does nothing."""

    def __init__(
        self, world: World, listener_number: int, inherited: Inherited | None = None
    ) -> None:
        self._world = world
        self._office: Any = world.office
        slots = 0
        if inherited is None:
            loader = world.office.first(world.settings)
            self.generations = [Generation(1, apps.facts, world.settings, loader)]
        else:
            listener_number = inherited.state["pieces"]["listener 0"][1][0]
            slots = inherited.state["slots"]
            self.generations = inherited.generations()
            for one in self.generations:
                one.loader.world = world  # type: ignore[attr-defined]
        self.generation = self.generations[-1]
        listener: Any = SimulatedListener(world.listener, listener_number)
        self.listeners = [listener]
        self.board = MasterView(world.board, slots)
        self.stopping = self.is_drained = False
        self.planned_drain = PlannedDrain(self.empty)
        self.orphans = Orphans()
        self.started_at = 0.0
        self._status = 0
        self._watched = []
        self._was_signalled = False
        self._dead, self._exits = set(), {}
        self._acted_at = self._plan_at = 0.0
        self._awake_at = world.kernel.now_ns / 1e9
        self._watching = False
        self._trace = None
        draining: Any = SimulatedDraining(self.listeners)  # type: ignore[arg-type]
        self.draining = draining
        self._has_orphans = self._has_come_up = self.was_ready = False
        idle: Any = SimpleNamespace(
            is_running=False, is_near=False, is_born=True, due_at=math.inf, is_waiting=False
        )
        idle.turn = idle.stop = idle.note = idle.ready = idle.worker_ended = _nothing
        idle.count = idle.look = idle.configure = idle.raised = idle.saturated = _nothing
        idle.finish = bool
        idle.take_overdue = list
        idle.is_quiet, idle.take_over, idle.handed_over = True, _nothing, lambda: ({}, [])
        self._parts = parts = self._make_parts(idle)
        self.reload = Reload(self, parts.spawner, world.reloaded)
        self.upgrade: Any = idle
        if world.kind.upgrades:
            office: Any = world.office
            self.upgrade = Upgrade(self, parts, office)
            self._watched.append(self.upgrade)
        if inherited is not None:
            inherited.install(self, parts)
        else:
            parts.spawner.start(self.generation, self.listeners)

    def _make_parts(self, idle: Any) -> Any:
        world, settings = self._world, self.settings
        parts: Any = SimpleNamespace(observing=idle, workers={}, incidents=idle)
        parts.selector = selector = Selector()
        parts.scoreboard = self.scoreboard = Scoreboard()
        parts.load = self.load = LoadMeter(settings, self.board, self.listeners, idle)
        restart = self.load.history.restart
        parts.reader = StatusReader(
            self.board, self.scoreboard, selector, lambda: restart(world.kernel.now_ns)
        )
        parts.withheld = WithheldEdges(self.board, self.scoreboard, self.load.history)
        parts.recycler = Recycler(settings, self.board)
        parts.recycler._random = world.kernel.choices.random
        parts.parker = ParkerHandle(
            *(self.board, apps.facts, settings, self.listeners, parts.workers, selector, _nothing)
        )
        parts.parker._helper._world = world
        parts.watchdog = Watchdog(self.board, selector, parts.parker.adopt, idle, idle)
        figures: Any = SimpleNamespace(add_names=_nothing, handed_over=lambda: ({}, []))
        figures.take_over = _nothing
        parts.figures, parts.trace, parts.send_signals_again = figures, None, _nothing
        parts.spawner = Spawner(self.board, figures, lambda: None)
        parts.pool = self.pool = Pool(
            board=self.board,
            scoreboard=self.scoreboard,
            workers=parts.workers,
            selector=selector,
            spawner=parts.spawner,
            reader=parts.reader,
            load=self.load,
            recycler=parts.recycler,
            lost=idle,
            watchdog=parts.watchdog,
            parker=parts.parker,
            stopped=idle,
            observing=idle,
            incidents=idle,
            brake=Brake(settings.poison_deaths, settings.poison_window, settings.poison_pause),
        )
        for generation in self.generations:
            if generation.loader.is_open:
                generation.loader.watch(selector, self.pool)
        selector.register(here().install(world.events.orders), 1, world.events.obey)
        parts.configure = functools.partial(Parts.configure, parts)
        parts.close = parts.close_in_loader = _nothing
        return parts

    def _look_for_first_generation(self) -> None:
        super()._look_for_first_generation()
        if self.was_ready:
            self._world.wake_awaiting()

    def _close(self) -> None:
        """Leave everything as it is: the world looks at it."""


def _nothing(*_: object, **__: object) -> None:
    """Do nothing."""
