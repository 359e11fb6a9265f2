"""The simulated workers: loop, connections, and evacuation thread are real; boot and exit are models."""

from __future__ import annotations

import contextlib
import functools
from typing import TYPE_CHECKING, Any

from linepool.errors import LeaveNow
from linepool.ipc.board import WorkerView
from linepool.ipc.status_pipe import StatusPipe
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
from tests.simulation.calls import signal
from tests.simulation.listeners import SimulatedListener
from tests.simulation.process import Process
from tests.simulation.sockets import Socket

if TYPE_CHECKING:
    from tests.simulation.world import World

_TERM, _QUIT = 15, 3
_DIES_AFTER_S = 0.01


@functools.cache
def _figures(_slot: int) -> RequestFigures:
    """Return what nobody looks at here; to make it takes as long as much of a schedule."""
    return RequestFigures.of(None, 0, [apps.service])


def run_worker(
    world: World, worker: Process, letter: dict[str, int], numbers: list[int], becomes: str
) -> None:
    """Be a worker, from its birth to its end."""
    with contextlib.suppress(LeaveNow):  # also before there is a loop
        _run_worker(world, worker, letter, numbers, becomes)


def _run_worker(
    world: World, worker: Process, letter: dict[str, int], numbers: list[int], becomes: str
) -> None:
    kernel, slot = world.kernel, letter["slot"]
    kernel.sleep(0.002)
    if worker.parent != world.master.pid:
        raise SystemExit(1)
    if world.may_fail and kernel.choices.chance(0.02):
        raise SystemExit(75)
    if becomes == "fails":
        raise SystemExit(3)
    writer, channel, bell, stack = numbers
    listeners: Any = [SimulatedListener(world.listener)] if world.shared else []
    board = WorkerView(world.board, slot)
    orders = Orders(board, world.master.pid)
    pipe = StatusPipe.of_worker(writer)
    edges = Edges(board, pipe, slot, worker.generation, orders.master_ended)
    signal.signal(_TERM, orders._on_term)
    signal.signal(_QUIT, _on_quit)
    orders.check_master()
    interrupts = Interrupts(board, stack)
    safe_point = SafePoint()
    settings = world.settings
    evacuation.start(bell, stack, settings.hand_off_after, board, orders, safe_point, listeners)
    if becomes == "dies":
        kernel.start(worker, functools.partial(_die, world, worker), "killer")
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
        except LeaveNow:
            board.drop()
    world.account.leaves(worker)


def _on_quit(_number: int, _frame: object) -> None:
    raise LeaveNow


def _die(world: World, worker: Process) -> None:
    """End a worker soon after it is ready."""
    world.kernel.sleep(_DIES_AFTER_S)
    world.kernel.signal(worker, 9)
