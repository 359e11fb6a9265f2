"""Serving in this process, without a master and other processes, for a debugger: ``workers = 0``.

It runs the loop of a worker, with the handlers, hooks and resources of one. Nothing limits the time of a
request, and nothing closes a connection while the user looks at a handler.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pdb
import signal
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any

from attrs import evolve

from linepool import forked, in_flight
from linepool.errors import LeaveNow
from linepool.ipc import channel as channels
from linepool.ipc.board import Board, WorkerView
from linepool.ipc.status_pipe import StatusPipe
from linepool.kernel.binding import open_listeners
from linepool.kernel.listeners import Listener
from linepool.loader.image import Image
from linepool.master.announcing import announce, announce_listeners
from linepool.operate.loading import Source, load
from linepool.pubsub.bus import Bus
from linepool.pubsub.subscriptions import Subscriptions
from linepool.resources import Resources
from linepool.settings import Settings
from linepool.worker.access_lines import AccessLines
from linepool.worker.context import WorkerContext
from linepool.worker.contexts import services_at, with_listeners
from linepool.worker.edges import Edges
from linepool.worker.figures import RequestFigures
from linepool.worker.forks import Forks
from linepool.worker.interrupts import Interrupts
from linepool.worker.loop import Loop
from linepool.worker.observer import Observer
from linepool.worker.orders import Orders
from linepool.worker.safe_point import SafePoint

log = logging.getLogger("linepool")

_SLOT = 0
_STANDARD_ERROR = 2
_NO_LIMIT = 1e9  # seconds
_STOPPING = (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)


def serve_here(source: Source, on_listening: Callable[[list[Listener]], None] | None) -> int:
    """Load an app and serve it in this process until it is stopped; return the exit status.

    Raises:
        SetupError: It cannot start; the text says why.
    """
    image = load(source)
    settings = _without_limits(image.settings)
    source.supervision.close_strays(settings.bind)
    listeners = open_listeners(settings)
    try:
        announce_listeners(listeners, settings)
        if on_listening is not None:
            on_listening(listeners)
        _Foreground(image, settings, listeners).run()
    finally:
        for listener in listeners:
            listener.remove()
    log.info("stopped")
    return 0


def _without_limits(settings: Settings) -> Settings:
    """Return the settings of a loop that hands off nothing, and in which no time is limited."""
    none = {"request_timeout": 0.0}
    none |= dict.fromkeys(("idle_timeout", "read_timeout", "write_timeout"), _NO_LIMIT)
    tables = tuple(one.with_options(none) for one in settings.listeners)
    changes: Any = {"listeners": tables, "scheme": "shared", "park_after": _NO_LIMIT, **none}
    return evolve(settings, **changes)


class _Orders(Orders):
    """The orders of the user, who has signals for them; there is no master."""

    def __init__(self, board: WorkerView) -> None:
        super().__init__(board, os.getpid())

    def check_master(self) -> None:
        """Do nothing."""

    def listen(self) -> None:
        """Install the handlers of the signals, but those that are ignored."""
        signal.signal(signal.SIGTERM, self._on_term)
        for number in _STOPPING:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, _stop_at_once)
        # Which it installs when its user lets a handler continue, until the next prompt.
        pdb.Pdb.sigint_handler = staticmethod(_stop_at_once)  # type: ignore[method-assign,assignment]

    def _on_term(self, number: int, frame: FrameType | None) -> None:
        if self.must_leave:
            _stop_at_once(number, frame)
        self.master_ended()  # as a worker leaves without one


def _stop_at_once(number: int, _frame: FrameType | None) -> None:
    if forked.is_forking:
        forked.send_again(number)
    else:
        raise LeaveNow


class _Foreground:
    """A worker's loop without a master."""

    def __init__(self, image: Image, settings: Settings, listeners: list[Listener]) -> None:
        self._image = image
        self._settings = settings
        self._listeners = listeners
        # As many connections again may wait until their clients read.
        page = Board(2 * settings.hot_connections)
        self._board = WorkerView(page, _SLOT)
        self._pipe = StatusPipe()  # which nobody reads
        self._edges = Edges(self._board, self._pipe, _SLOT, generation=1)
        self._channel, self._parker = channels.pair()
        publishes = any(one.protocol.publishes for one in image.services.values())
        self._bus = Bus(_SLOT + 1) if publishes else None
        self._orders = _Orders(self._board)
        self._loop: Loop | None = None
        self._orders.listen()
        self._interrupts = Interrupts(self._board, _STANDARD_ERROR)
        in_flight.serve(self._board)
        pages = [page.page, *(listener.phase for listener in listeners)]
        pages += [self._bus.page] if self._bus else []
        Forks(listeners, pages, self._descriptors)

    def run(self) -> None:
        """Serve until a signal ends it."""
        immediately = contextlib.suppress(LeaveNow)
        # Within the worker too, so that its resources are closed as usual then.
        with immediately, self._image.apps.worker() as resources, immediately:
            self._serve(resources)

    def _serve(self, resources: Mapping[str, Resources]) -> None:
        image, name = self._image, self._image.apps.first.name
        services = services_at(self._listeners, self._settings, image.services)
        line_format = self._settings.access_log_format
        lines = AccessLines(image.first, line_format, services=services)
        context = WorkerContext(
            image.first,
            self._settings,
            resources[name],
            self._board,
            self._orders,
            self._interrupts,
            Subscriptions(self._bus.endpoint(_SLOT) if self._bus else None),
            SafePoint(),
            Observer(lines, image.access) if image.access is not None else None,
            image.tls.get(""),
            figures=RequestFigures.of(None, _SLOT, image.services.values()),
        )
        context = with_listeners(context, self._listeners, image.services, resources, image.tls)
        self._loop = Loop(
            context, self._channel, self._listeners, self._edges, is_worn=lambda: False
        )
        announce(f"ready: in the foreground pid={os.getpid()}", "ready", workers=0)
        self._loop.run()

    def _descriptors(self) -> list[int]:
        """Return the descriptors that are its own, but for its clients' and the listeners."""
        own = [self._pipe.reader, self._pipe.writer]
        own += [self._channel.fileno(), self._parker.fileno()]
        own += [self._orders.master, self._orders.wakeup]
        own += self._loop.descriptors() if self._loop else []
        return own + (self._bus.descriptors() if self._bus else [])
