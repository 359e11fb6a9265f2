"""The fork: what a new worker is given, and what of the master's it leaves behind.

Runs in the master, and in each new worker until it begins to serve.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable
from typing import NoReturn

from linepool.app import App
from linepool.conversation import Service
from linepool.errors import LeaveNow
from linepool.ipc import channel as passing
from linepool.ipc.board import Board
from linepool.ipc.status_pipe import StatusPipe
from linepool.kernel.listeners import Listener, Waker
from linepool.kernel.rlimit import raise_file_limit
from linepool.kernel.signals import signals_blocked
from linepool.master.worker_handle import Child, Dumps
from linepool.pubsub.bus import Bus
from linepool.settings import MAX_WORKERS, Settings
from linepool.worker.worker import Place, Worker

log = logging.getLogger("linepool")

_SPARE_SEATS = 8  # for workers that are asked for with SCALE


class Spawner:
    """Forks workers.

    Args:
        leave: Called in each new worker: closes its copies of what is the master's.
    """

    def __init__(
        self,
        app: App,
        service: Service,
        settings: Settings,
        listeners: list[Listener],
        board: Board,
        waker: Waker,
        leave: Callable[[], None],
    ) -> None:
        self._app = app
        self._service = service
        self._settings = settings
        self._listeners = listeners
        self._board = board
        self._waker = waker
        self._leave = leave
        self._dumps = Dumps()
        self._bus = Bus(_seats(settings)) if service.protocol.publishes else None
        self._master = os.getpid()

    def spawn(self, slot: int, generation: int, recycle_at: int) -> Child:
        """Fork a worker and return the master's ends of it.

        Raises:
            OSError: There are no descriptors or processes left; nothing has changed.
        """
        with contextlib.ExitStack() as undo:
            pipe = StatusPipe()
            undo.callback(pipe.close)
            ours, theirs = passing.pair()
            undo.callback(ours.close)
            undo.callback(theirs.close)
            bell = os.eventfd(0, os.EFD_CLOEXEC)
            undo.callback(os.close, bell)
            dump = self._dumps.of(slot)
            self._board.slots[slot].clear()
            place = Place(
                slot,
                generation,
                self._board,
                self._board.slots[slot],
                bell,
                pipe,
                theirs,
                dump,
                self._master,
                recycle_at,
                self._bus,
            )
            _flush()  # what waits in the buffer would be written by each worker again
            with signals_blocked():
                pid = os.fork()
                if pid == 0:
                    ours.close()
                    self._become_worker(place)
            undo.callback(os.waitpid, pid, 0)
            undo.callback(os.kill, pid, signal.SIGKILL)
            child = Child(pid, pipe, ours, bell, dump)
            undo.pop_all()
        theirs.close()
        pipe.keep_reader()
        return child

    def reaped(self, slot: int) -> None:
        """Forget what a dead worker had subscribed to."""
        if self._bus is not None:
            self._bus.clear(slot)

    def close(self) -> None:
        """Give everything back."""
        self._dumps.keep(None)
        if self._bus is not None:
            self._bus.close()

    def _become_worker(self, place: Place) -> NoReturn:
        """Turn the new process into a worker, to its end."""
        status = 1
        try:
            place.pipe.keep_writer()
            self._dumps.keep(place.slot_number)
            self._waker.close()
            self._leave()
            os.setpgid(0, 0)  # what a handler starts can then be killed with it
            worker = Worker(
                self._app, self._service, self._settings, self._listeners, self._waker, place
            )
            signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals())
            status = worker.run()
        except LeaveNow:
            status = 0
        except BaseException:
            log.exception("worker failed pid=%d", os.getpid())
        finally:
            _flush()
            os._exit(status)


def _seats(settings: Settings) -> int:
    """Return how many slots may be in use at once, and make room for their sockets.

    A worker is replaced before it has left, so there may be twice as many as workers.
    """
    seats = min(MAX_WORKERS, 2 * settings.workers.max + _SPARE_SEATS)
    return min(seats, raise_file_limit(2 * seats) // 2)


def _flush() -> None:
    """Write out what was printed, if there is anywhere to write it."""
    if sys.stdout is not None:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
