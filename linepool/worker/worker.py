"""The worker: serves clients until it is told to leave.

Runs in a process of its own, forked by the master; it is the only process that runs handlers.
Nothing it does waits for the master.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import socket
import time

from attrs import frozen

from linepool.app import App
from linepool.conversation import Service
from linepool.errors import LeaveNow
from linepool.ipc.board import CONNECTIONS, PERMIT, REQUESTS, SINCE_NS, STATE, Board, Slot
from linepool.ipc.status_pipe import StatusPipe
from linepool.kernel.listeners import Listener, Waker, show
from linepool.pool.status import State, packed
from linepool.pubsub.bus import Bus
from linepool.pubsub.subscriptions import Audience
from linepool.session import Session
from linepool.settings import Settings
from linepool.worker import evacuation as second
from linepool.worker.context import Rest, Station
from linepool.worker.intake import Accept, Client
from linepool.worker.interrupts import Alarm
from linepool.worker.loop import Sharing
from linepool.worker.orders import Orders
from linepool.worker.staying import StayingConnection

log = logging.getLogger("linepool")


@frozen
class Place:
    """What the master gives a worker at its fork.

    Attributes:
        bell: Rung by the master when the worker's other connections had better be handed on.
    """

    slot_number: int
    generation: int
    board: Board
    slot: Slot
    bell: int
    pipe: StatusPipe
    channel: socket.socket
    dump: int
    master: int
    recycle_at: int  # leave after so many requests, with a license; 0: never
    bus: Bus | None


class Worker:
    """One worker."""

    def __init__(
        self,
        app: App,
        service: Service,
        settings: Settings,
        listeners: list[Listener],
        waker: Waker,
        place: Place,
    ) -> None:
        self._app = app
        self._service = service
        self._settings = settings
        self._listeners = listeners
        self._place = place
        self._words = place.slot.words
        self._pid = os.getpid()
        self._numbers = itertools.count(1)
        self._orders = Orders(place.slot, place.channel, place.master, self._let_go)
        self._orders.listen()
        self._alarm = Alarm(place.slot, place.dump)
        self._waker = waker
        self._sharing: Sharing | None = None

    def run(self) -> int:
        """Serve until told to leave; return the exit status of the process."""
        try:
            # The inner one catches a stop at once and the master's end, so that resources see an
            # ordinary end in both cases.
            with (
                self._app.worker() as resources,
                contextlib.suppress(LeaveNow, BrokenPipeError),
            ):
                self._work(resources)
        except LeaveNow:
            return 0
        except Exception:
            log.exception("worker failed pid=%d", self._pid)
            return 1
        return 0

    def _work(self, resources: dict[str, object]) -> None:
        bus = self._place.bus
        station = Station(
            self._service,
            self._settings,
            resources,
            self._place.slot,
            self._orders,
            self._alarm,
            Audience(bus.desk(self._place.slot_number) if bus else None),
            Rest(),
        )
        if self._settings.parks:
            self._share(station)
        else:
            self._stay(station)
        self._report(State.LEAVING)

    def _share(self, station: Station) -> None:
        """Serve many clients by turns."""
        place = self._place
        self._sharing = Sharing(
            station,
            place.board,
            place.slot_number,
            place.channel,
            self._listeners if self._settings.scheme == "shared" else [],
            self._report,
            self._is_worn,
        )
        second.start(place.bell, station, self._sharing)
        self._sharing.run()

    def _stay(self, station: Station) -> None:
        """Serve one client after another."""
        intake = Accept(self._listeners, self._orders, self._waker, self._settings)
        self._report(State.READY)
        while client := intake.next():
            self._report(State.TAKEN)
            self._serve(client, station)
            if self._is_worn():
                break
            self._report(State.IDLE)

    def _serve(self, client: Client, station: Station) -> None:
        sock, address, listener = client
        self._words[CONNECTIONS] += 1
        session = Session(f"{self._pid}-{next(self._numbers)}", show(address), listener.name)
        StayingConnection(sock, session, station, time.monotonic()).serve()

    def _is_worn(self) -> bool:
        """Whether it has served its number of requests and may leave."""
        limit = self._place.recycle_at
        return bool(limit and self._words[REQUESTS] >= limit and self._words[PERMIT])

    def _report(self, state: State) -> None:
        """Tell the master, at an edge that it must know."""
        words = self._words
        now_ns = time.monotonic_ns()
        words[STATE] = state
        words[SINCE_NS] = now_ns
        place = self._place
        place.pipe.report(
            packed(
                place.slot_number,
                state,
                self._pid,
                place.generation,
                words[CONNECTIONS],
                words[REQUESTS],
                now_ns,
            )
        )

    def _let_go(self) -> None:
        if self._sharing is not None:
            self._sharing.let_go()
        for listener in self._listeners:
            listener.close()
