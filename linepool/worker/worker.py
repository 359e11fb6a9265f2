"""A worker's life: it boots, serves until it is ordered to leave, and leaves.

Runs in a process of its own, forked by the master; only workers run handlers. Nothing that a worker
does waits for the master.
"""

from __future__ import annotations

import logging
import mmap
import os
import socket
import time

from attrs import frozen

from linepool.app import App
from linepool.errors import LeaveNow
from linepool.ipc.board import Board, WorkerView
from linepool.ipc.status_pipe import StatusPipe
from linepool.kernel.listeners import Listener
from linepool.kernel.shortage import exit_status
from linepool.kernel.standard import fill_standard_descriptors
from linepool.kernel.title import set_title
from linepool.pool.status import State
from linepool.pubsub.bus import Bus
from linepool.pubsub.subscriptions import Subscriptions
from linepool.resources import Resources
from linepool.service import Service
from linepool.settings import Settings
from linepool.worker import debugger, ending, evacuation
from linepool.worker.access_lines import AccessLines
from linepool.worker.blocking import BlockingLoop
from linepool.worker.context import WorkerContext
from linepool.worker.edges import Edges
from linepool.worker.forks import Forks
from linepool.worker.interrupts import Interrupts
from linepool.worker.loop import Loop
from linepool.worker.observer import Observer, Output
from linepool.worker.orders import Orders
from linepool.worker.safe_point import SafePoint

log = logging.getLogger("linepool")


@frozen(kw_only=True)
class WorkerSpec:
    """What the master gives a worker at its fork.

    Attributes:
        bell: An eventfd; the master writes to it when the worker's other connections should be
            handed off.
        stack_file: A descriptor; where the stacks of a stuck worker are written.
        master: The master's pid.
        access: Where the access log goes; None: it is off.
        recycle_at: Leave after this many requests, with a permit; 0: never.
    """

    slot: int
    generation: int
    app: App
    service: Service
    settings: Settings
    listeners: list[Listener]
    board: Board
    bell: int
    pipe: StatusPipe
    channel: socket.socket
    stack_file: int
    master: int
    recycle_at: int
    bus: Bus | None
    access: Output | None


class Worker:
    """One worker."""

    def __init__(self, spec: WorkerSpec) -> None:
        self._spec = spec
        self._pid = os.getpid()
        spec.board.protect(spec.slot)
        for memory in (spec.board.memory, *(listener.memory for listener in spec.listeners)):
            memory.close()  # it is mapped, and the worker hands it over to no other process
        self._board = WorkerView(spec.board, spec.slot)
        self._edges = Edges(self._board, spec.pipe, spec.slot, spec.generation)
        self._orders = Orders(self._board, spec.master)
        self._orders.listen()
        self._interrupts = Interrupts(self._board, spec.stack_file)
        self._loop: Loop | BlockingLoop | None = None
        # Open until there is a loop, and after it: nothing else uses the listeners then.
        self._safe_point = SafePoint()
        self._safe_point.is_open = True
        ending.own_exit_functions()
        debugger.install(self._board, spec.master)
        Forks(spec.listeners, self._pages(), self._descriptors)

    def run(self) -> int:
        """Serve until ordered to leave; return the exit status of the process."""
        spec = self._spec
        set_title("worker", f"{spec.slot} {spec.service.name} g{spec.generation}")
        after = self._spec.settings.hand_off_after
        evacuation.start(
            self._spec.bell,
            self._spec.stack_file,
            after,
            self._board,
            self._orders,
            self._safe_point,
            self._spec.listeners,
        )
        status = 0
        end_by = 0.0  # what is left then is cut; 0: at once
        try:
            with self._spec.app.worker() as resources:
                # Here an immediate stop and the end of the master are caught, so that resources are
                # closed normally in both cases.
                try:
                    self._serve(resources)
                    end_by = self._end_by()
                    self._edges.tell(State.LEAVING)
                except BrokenPipeError:
                    end_by = self._end_by()
                except LeaveNow:
                    end_by = 0.0
        except LeaveNow:
            end_by = 0.0
        except Exception as error:
            log.exception("worker failed pid=%d", self._pid)
            status = exit_status(error)
        ending.finish(end_by)
        return status

    def _serve(self, resources: Resources) -> None:
        spec, settings = self._spec, self._spec.settings
        safe_point = self._safe_point
        if settings.has_parker:
            safe_point.is_open = False
            safe_point.wait()
        else:
            safe_point = SafePoint()  # of the connection alone; the other one stays open
        fill_standard_descriptors()  # before this worker opens files of its own
        if self._orders.is_orphaned:
            return
        context = WorkerContext(
            spec.service,
            settings,
            resources,
            self._board,
            self._orders,
            self._interrupts,
            Subscriptions(spec.bus.endpoint(spec.slot) if spec.bus else None),
            safe_point,
            self._observer(),
        )
        listeners = spec.listeners
        if settings.parker_accepts:
            for listener in listeners:
                listener.close()
            listeners = []
        kind = Loop if settings.has_parker else BlockingLoop
        self._loop = loop = kind(context, spec.channel, listeners, self._edges, self._is_worn)
        try:
            loop.run()
        except LeaveNow:
            self._board.drop()  # its request did not end this worker
            raise
        finally:
            self._safe_point.is_open = True

    def _observer(self) -> Observer | None:
        spec = self._spec
        if spec.access is None:
            return None
        lines = AccessLines(spec.service, spec.settings.access_log_format)
        return Observer(lines, spec.access)

    def _end_by(self) -> float:
        """Return when it must have ended, on the monotonic clock, a little before the master kills it."""
        patience = self._spec.settings.graceful_timeout
        since = self._loop.leaving_since if self._loop is not None else 0.0
        return (since or time.monotonic()) + patience - min(0.5, patience / 5)

    def _pages(self) -> list[mmap.mmap]:
        """Return the memory that it shares with other processes."""
        spec = self._spec
        pages = [spec.board.page, *(listener.phase for listener in spec.listeners)]
        return pages + ([spec.bus.page] if spec.bus else [])

    def _descriptors(self) -> list[int]:
        """Return the descriptors that are its own, but for its clients' and the listeners."""
        spec, orders = self._spec, self._orders
        own = [spec.bell, spec.stack_file, spec.pipe.writer, spec.channel.fileno()]
        own += [orders.master, orders.wakeup]
        if self._loop is not None:
            own += self._loop.descriptors()
        return own + (spec.bus.descriptors() if spec.bus else [])

    def _is_worn(self) -> bool:
        """Whether it has served its number of requests and is permitted to leave."""
        limit = self._spec.recycle_at
        return bool(limit) and self._board.may_recycle(limit)
