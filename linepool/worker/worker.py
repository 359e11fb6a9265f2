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
from collections.abc import Mapping
from typing import TYPE_CHECKING

from attrs import field, frozen

from linepool import in_flight, this_server
from linepool.apps import Apps
from linepool.errors import LeaveNow
from linepool.ipc.board import Board, WorkerView
from linepool.ipc.figures import Figures
from linepool.ipc.status_pipe import StatusPipe
from linepool.kernel.listeners import Listener
from linepool.kernel.shortage import exit_status
from linepool.kernel.standard import fill_standard_descriptors
from linepool.kernel.title import set_title
from linepool.pool.status import State
from linepool.pubsub.bus import Bus, BusEndpoint
from linepool.pubsub.subscriptions import Subscriptions
from linepool.resources import Resources
from linepool.service import Service
from linepool.settings import Settings
from linepool.worker import debugger, ending, evacuation
from linepool.worker.access_lines import AccessLines
from linepool.worker.blocking import BlockingLoop
from linepool.worker.context import WorkerContext
from linepool.worker.contexts import services_at, with_listeners
from linepool.worker.edges import Edges
from linepool.worker.figures import RequestFigures
from linepool.worker.forks import Forks
from linepool.worker.interrupts import Interrupts
from linepool.worker.loop import Loop
from linepool.worker.observer import Observer, Output
from linepool.worker.orders import Orders
from linepool.worker.safe_point import SafePoint
from linepool.worker.timeout_notes import TimeoutNotes
from linepool.worker.waiting import WaitingRequests
from linepool.worker.waiting_alone import WaitingAlone

if TYPE_CHECKING:
    import ssl

log = logging.getLogger("linepool")


@frozen(kw_only=True)
class WorkerSpec:
    """What the master gives a worker at its fork.

    Attributes:
        bell: A counter; the master adds to it when the worker's other connections should be
            handed off.
        stack_file: A descriptor; where the stacks of a stuck worker are written.
        master: The master's pid.
        parent: The pid of what keeps the worker; 0: that is the master.
        life: A descriptor that is readable when the master has ended; -1: by its pidfd.
        services: Each app, made ready to serve, by its name.
        access: Where the access log goes; None: it is off.
        tls: With which TLS handshakes begin, by the listener's key; "": those of the server.
        recycle_at: Leave after this many requests, with a permit; 0: never.
    """

    slot: int
    generation: int
    apps: Apps
    services: Mapping[str, Service]
    settings: Settings
    listeners: list[Listener]
    board: Board
    figures: Figures
    bell: int
    pipe: StatusPipe
    channel: socket.socket
    stack_file: int
    master: int
    recycle_at: int
    bus: Bus | None
    access: Output | None
    tls: Mapping[str, ssl.SSLContext] = field(factory=dict)
    parent: int = 0
    life: int = -1


class Worker:
    """One worker."""

    def __init__(self, spec: WorkerSpec) -> None:
        self._spec = spec
        self._pid = os.getpid()
        this_server.note(spec.settings.control, spec.master)
        spec.board.protect(spec.slot)
        self._figures = RequestFigures.of(spec.figures, spec.slot, spec.services.values())
        spec.figures.file.close()
        for memory in (spec.board.memory, *(listener.memory for listener in spec.listeners)):
            memory.close()  # it is mapped, and the worker hands it over to no other process
        self._board = WorkerView(spec.board, spec.slot)
        self._orders = orders = Orders(self._board, spec.parent or spec.master, spec.life)
        self._edges = Edges(self._board, spec.pipe, spec.slot, spec.generation, orders.master_ended)
        self._orders.listen()
        self._interrupts = Interrupts(self._board, spec.stack_file)
        self._loop: Loop | BlockingLoop | None = None
        # Open until there is a loop, and after it: nothing else uses the listeners then.
        self._safe_point = SafePoint()
        self._safe_point.is_open = True
        ending.own_exit_functions()
        debugger.install(self._board, spec.master)
        in_flight.serve(self._board)
        TimeoutNotes(self._board, self._figures).serve()
        Forks(
            spec.listeners,
            self._pages(),
            self._descriptors,
            has_faulthandler=self._interrupts.report_crashes(),
        )

    def run(self) -> int:
        """Serve until ordered to leave; return the exit status of the process."""
        spec = self._spec
        set_title("worker", f"{spec.slot} {spec.apps.name} g{spec.generation}")
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
            with self._spec.apps.worker() as resources:
                # Here an immediate stop and the end of the master are caught, so that resources are
                # closed normally in both cases.
                try:
                    self._serve(resources)
                    end_by = self._end_by()
                    self._edges.tell(State.LEAVING)
                except LeaveNow:
                    end_by = 0.0
        except LeaveNow:
            end_by = 0.0
        except Exception as error:
            log.exception("worker failed pid=%d", self._pid)
            status = exit_status(error)
        ending.finish(end_by)
        return status

    def _serve(self, resources: Mapping[str, Resources]) -> None:
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
        endpoint = spec.bus.endpoint(spec.slot) if spec.bus else None
        subscriptions = Subscriptions(endpoint)
        context = WorkerContext(
            spec.services[spec.apps.first.name],
            settings,
            resources[spec.apps.first.name],
            self._board,
            self._orders,
            self._interrupts,
            subscriptions,
            safe_point,
            self._observer(),
            spec.tls.get(""),
            figures=self._figures,
            waits=self._waits(resources, subscriptions, endpoint),
        )
        context = with_listeners(context, spec.listeners, spec.services, resources, spec.tls)
        listeners = []
        for listener in spec.listeners:
            if settings.parker_accepts or not context.serves(listener.name):
                listener.close()
            else:
                listeners.append(listener)
        kind = Loop if settings.has_parker else BlockingLoop
        self._loop = loop = kind(context, spec.channel, listeners, self._edges, self._is_worn)
        try:
            loop.run()
        except LeaveNow:
            self._board.drop()  # its request did not end this worker
            raise
        finally:
            self._safe_point.is_open = True

    def _waits(
        self,
        resources: Mapping[str, Resources],
        subscriptions: Subscriptions,
        endpoint: BusEndpoint | None,
    ) -> WaitingRequests:
        board, channel = self._board, self._spec.channel
        if self._spec.settings.has_parker:
            waits = WaitingRequests(board, channel)
        else:
            waits = WaitingAlone(board, channel, subscriptions, endpoint)
        for one in resources.values():
            if one.waiters is not None:
                one.waiters.send = waits.wake
                one.waiters.flush()
        return waits

    def _observer(self) -> Observer | None:
        spec = self._spec
        if spec.access is None:
            return None
        first, line_format = spec.services[spec.apps.first.name], spec.settings.access_log_format
        services = services_at(spec.listeners, spec.settings, spec.services)
        lines = AccessLines(first, line_format, services=services)
        return Observer(lines, spec.access)

    def _end_by(self) -> float:
        """Return when it must have ended, on the monotonic clock, a little before the master kills it."""
        patience = self._spec.settings.graceful_timeout
        since = self._loop.leaving_since if self._loop is not None else 0.0
        return (since or time.monotonic()) + patience - min(0.5, patience / 5)

    def _pages(self) -> list[mmap.mmap]:
        """Return the memory that it shares with other processes."""
        spec = self._spec
        pages = [
            spec.board.page,
            *spec.figures.pages(),
            *(listener.phase for listener in spec.listeners),
        ]
        return pages + ([spec.bus.page] if spec.bus else [])

    def _descriptors(self) -> list[int]:
        """Return the descriptors that are its own, but for its clients' and the listeners."""
        spec, orders = self._spec, self._orders
        own = [spec.bell, spec.stack_file, spec.pipe.writer, spec.channel.fileno()]
        own += orders.descriptors()
        if self._loop is not None:
            own += self._loop.descriptors()
        return own + (spec.bus.descriptors() if spec.bus else [])

    def _is_worn(self) -> bool:
        """Whether it has served its number of requests and is permitted to leave."""
        limit = self._spec.recycle_at
        return bool(limit) and self._board.may_recycle(limit)
