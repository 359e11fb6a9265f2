"""The simulated processes: master, loader, parker and workers, made of real parts as far as it goes.

Real are the master's loop and pool, its watchdog, its handles of workers and parker; the whole parker; a
worker's loop, connections, requests that wait, and its evacuation thread. Models are the loader, the forks,
a listener, the end of the listeners in a stop, and how a worker boots and exits.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections import deque
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from linepool.errors import LeaveNow
from linepool.ipc import channel as channels
from linepool.ipc.board import MasterView, WorkerView
from linepool.ipc.status_pipe import StatusPipe
from linepool.kernel.pidfd import ChildProcess
from linepool.master.generation import Generation
from linepool.master.helper import Helper
from linepool.master.load import LoadMeter
from linepool.master.master import Master
from linepool.master.parker_handle import ParkerHandle
from linepool.master.pool import Pool
from linepool.master.recycler import Recycler
from linepool.master.spawner import Spawner
from linepool.master.status_reader import StatusReader
from linepool.master.watchdog import Watchdog
from linepool.master.withheld import WithheldEdges
from linepool.parker.parker import Parker
from linepool.pool.brake import Brake
from linepool.pool.scoreboard import Scoreboard
from linepool.pool.status import State
from linepool.pubsub.subscriptions import Subscriptions
from linepool.worker import evacuation
from linepool.worker.context import WorkerContext
from linepool.worker.edges import Edges
from linepool.worker.figures import RequestFigures
from linepool.worker.interrupts import Interrupts
from linepool.worker.loop import Loop
from linepool.worker.orders import Orders
from linepool.worker.safe_point import SafePoint
from linepool.worker.waiting import WaitingRequests
from tests.simulation import app as apps
from tests.simulation.calls import Selector, signal
from tests.simulation.files import Counter, File, ListenQueue, Memory
from tests.simulation.kernel import Process, Task
from tests.simulation.machine import here
from tests.simulation.sockets import Socket

if TYPE_CHECKING:
    from tests.simulation.world import World

_TERM, _QUIT = 15, 3


class SimulatedListener:
    """A listener as one process has it."""

    name = key = "127.0.0.1:1"
    is_unix = False
    owned = True

    def __init__(self, queue: ListenQueue, number: int = -1) -> None:
        self.names = [self.name]
        self._queue = queue
        self.socket = Socket(fileno=here().install(queue) if number < 0 else number)

    def accept(self) -> tuple[Socket, object]:
        """Return a new connection and its client's address."""
        number, address = self.socket._accept()
        return Socket(fileno=number), address

    def queue(self) -> tuple[int, int]:
        """Return how many connections wait, and how many may."""
        return len(self._queue.queue), 128

    @property
    def is_shut(self) -> bool:
        """Whether it has ended."""
        return self._queue.is_shut

    def shut(self) -> None:
        """End it in all processes."""
        self._queue.shut(here())

    def close(self) -> None:
        """Close this process's copy."""
        self.socket.close()


class _Draining:
    """The end of the listeners in a stop: newcomers are refused, and it ends when none waits."""

    def __init__(self, listeners: list[SimulatedListener]) -> None:
        self.due_at = math.inf
        self._listeners = listeners

    def begin(self) -> None:
        for one in self._listeners:
            one._queue.turns_away = True
        self.due_at = 0.0

    end = begin

    def turn(self) -> None:
        now = here().kernel.now_ns / 1e9
        if now < self.due_at:
            return
        self.due_at = now + 0.01
        if not any(one.queue()[0] for one in self._listeners):
            self.due_at = math.inf
            for one in self._listeners:
                one.shut()


class SimulatedLoader:
    """The loader: forks workers after a while, and says so."""

    facts = apps.facts
    end = ""
    is_open = True

    def __init__(self, world: World) -> None:
        self._world = world
        self._orders: deque[tuple[dict[str, int], list[File]]] = deque()
        self._letters: deque[tuple[int, Process]] = deque()
        self._sleepers: dict[Task, None] = {}
        self.process = world.kernel.fork("loader")
        self.bell = Counter(world.kernel)
        world.kernel.start(self.process, self._run)
        self._ears: Pool | None = None

    @property
    def heard_at(self) -> float:
        """When it sent something last."""
        return self._world.kernel.now_ns / 1e9

    def watch(self, selector: Any, ears: Pool) -> None:
        """Have the master hear of births."""
        self._ears = ears
        selector.register(here().install(self.bell), 1, self._hear)

    def send(self, kind: str, letter: dict[str, int], descriptors: list[int]) -> None:
        """Take an order for a worker."""
        assert kind == "SPAWN"
        world = self._world
        if world.may_fail and world.kernel.choices.chance(0.02):
            raise BlockingIOError(11, "the loader does not read")
        files = [here().file(number) for number in descriptors]
        for file in files:
            file.refs += 1
        self._orders.append((letter, files))
        for task in list(self._sleepers):
            world.kernel.wake(task)

    def ask_error(self, _line: bytes, _eol: bytes, text: str, _local: str, send: Any) -> None:
        """Encode the error line of a killed worker's client."""
        send(f"SERVER_ERROR {text}\r\n".encode())

    def kill(self, _why: str) -> None:
        """Do nothing: it never hangs."""

    def _run(self) -> None:
        world, kernel = self._world, self._world.kernel
        while True:
            kernel.wait(lambda: self._orders, math.inf, (self._sleepers,))
            letter, files = self._orders.popleft()
            kernel.sleep(0.0005)
            worker = kernel.fork(f"worker{letter['slot']}", world.master.pid)
            numbers = [worker.install(file) for file in (*files, Memory(kernel))]
            worker.fds[2] = worker.fds.pop(numbers.pop())  # standard error
            worker.facts = letter["slot"]
            kernel.start(worker, functools.partial(run_worker, world, worker, letter, numbers))
            for file in files:
                file.release(self.process, "closed")
            self._letters.append((letter["slot"], worker))
            self.bell.value += 1
            self.bell.changed()

    def _hear(self) -> None:
        assert self._ears is not None
        self.bell.value = 0
        while self._letters:
            slot, worker = self._letters.popleft()
            self._ears.born(slot, worker.pid, here().install(worker.entry))


@functools.cache
def _figures(_slot: int) -> RequestFigures:
    """Return what nobody looks at here; to make it takes as long as much of a schedule."""
    return RequestFigures.of(None, 0, [apps.service])


def run_worker(world: World, worker: Process, letter: dict[str, int], numbers: list[int]) -> None:
    """Be a worker, from its birth to its end."""
    with contextlib.suppress(LeaveNow):  # also before there is a loop
        _run_worker(world, worker, letter, numbers)


def _run_worker(world: World, worker: Process, letter: dict[str, int], numbers: list[int]) -> None:
    kernel, slot = world.kernel, letter["slot"]
    kernel.sleep(0.002)
    if world.may_fail and kernel.choices.chance(0.02):
        raise SystemExit(75)
    writer, channel, bell, stack = numbers
    listeners: Any = [SimulatedListener(world.listener)] if world.shared else []
    board = WorkerView(world.board, slot)
    edges = Edges(board, StatusPipe.of_worker(writer), slot, 1)
    orders = Orders(board, world.master.pid)
    signal.signal(_TERM, orders._on_term)
    signal.signal(_QUIT, _on_quit)
    interrupts = Interrupts(board, stack)
    safe_point = SafePoint()
    settings = world.settings
    evacuation.start(bell, stack, settings.hand_off_after, board, orders, safe_point, listeners)
    limit = letter["recycle_at"]
    with apps.resources.opened() as resources:
        waits = WaitingRequests(board, Socket(fileno=channel))  # type: ignore[arg-type]
        if resources.waiters is not None:
            resources.waiters.send = waits.wake
            resources.waiters.flush()
        context = WorkerContext(
            apps.service,
            settings,
            resources,
            board,
            orders,
            interrupts,
            Subscriptions(None),
            safe_point,
            figures=_figures(slot),
            waits=waits,
        )
        end: Any = Socket(fileno=channel)
        loop = Loop(
            context, end, listeners, edges, lambda: bool(limit) and board.may_recycle(limit)
        )
        try:
            loop.run()
            edges.tell(State.LEAVING)
        except (LeaveNow, BrokenPipeError):
            board.drop()
    world.account.leaves(worker)


def _on_quit(_number: int, _frame: object) -> None:
    raise LeaveNow


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

    def __init__(self, world: World) -> None:
        self._world = world
        loader: Any = SimulatedLoader(world)
        self.generation = Generation(1, apps.facts, world.settings, loader)
        self.generations = [self.generation]
        listener: Any = SimulatedListener(world.listener)
        self.listeners = [listener]
        self.board = MasterView(world.board)
        self.stopping = self.is_drained = False
        self.planned_drain = SimpleNamespace(cancel=lambda: None)  # type: ignore[assignment]
        self._status = 0
        self._watched = []
        self._was_signalled = False
        self._dead, self._exits = set(), {}
        self._acted_at = self._plan_at = 0.0
        self._awake_at = world.kernel.now_ns / 1e9
        self._watching = False
        self._trace = None
        draining: Any = _Draining(self.listeners)  # type: ignore[arg-type]
        self.draining = draining
        self._has_orphans = self._has_come_up = self.was_ready = False
        idle: Any = SimpleNamespace(
            is_running=False, is_near=False, is_born=True, due_at=math.inf, is_waiting=False
        )
        idle.turn = idle.stop = idle.note = idle.ready = idle.worker_ended = _nothing
        idle.count = idle.look = idle.configure = idle.raised = idle.saturated = _nothing
        idle.finish = bool
        idle.take_overdue = list
        self.reload = self.upgrade = idle
        self._parts = self._make_parts(idle)

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
        parts.recycler._random = world.kernel.choices._random
        parts.parker = ParkerHandle(
            *(self.board, apps.facts, settings, self.listeners, parts.workers, selector, _nothing)
        )
        parts.parker._helper._world = world
        parts.watchdog = Watchdog(self.board, selector, parts.parker.adopt, idle, idle)
        figures: Any = None
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
        loader: Any = self.generation.loader
        loader.watch(selector, self.pool)
        selector.register(here().install(world.orders), 1, world.obey)
        parts.close = _nothing
        return parts

    def _close(self) -> None:
        """Leave everything as it is: the world looks at it."""


def _nothing(*_: object, **__: object) -> None:
    """Do nothing."""
