"""The fork of a worker: what it is given, and what of the master's it closes.

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

from attrs import evolve

from linepool.errors import LeaveNow
from linepool.ipc import channel as channels
from linepool.ipc.board import MasterView
from linepool.ipc.status_pipe import StatusPipe
from linepool.kernel.listeners import Listener
from linepool.kernel.rlimit import bus_regions
from linepool.kernel.shortage import exit_status
from linepool.kernel.signals import signals_blocked
from linepool.kernel.standard import with_high_number
from linepool.master.generation import Generation
from linepool.master.worker_handle import StackFiles, WorkerHandle
from linepool.pubsub.bus import Bus
from linepool.worker.worker import Worker, WorkerSpec

log = logging.getLogger("linepool")


class Spawner:
    """Forks workers.

    Args:
        generation: The first one.
        listeners: Shared by all workers.
        board: Shared by all workers.
        close_inherited: Called in each new worker: closes its copies of what is the master's.
    """

    def __init__(
        self,
        generation: Generation,
        listeners: list[Listener],
        board: MasterView,
        close_inherited: Callable[[], None],
    ) -> None:
        self._listeners = listeners
        self._board = board
        self._close_inherited = close_inherited
        self._stack_files = StackFiles()
        publishes = generation.service.protocol.publishes
        regions = bus_regions(generation.settings.workers.max)
        self._bus = Bus(regions, with_high_number) if publishes else None
        self._master = os.getpid()

    def spawn(self, slot: int, generation: Generation, recycle_at: int) -> WorkerHandle:
        """Fork a worker and return the master's ends of it.

        Args:
            slot: Where it is to be.
            generation: What it is forked from.
            recycle_at: It leaves after this many requests, with a permit; 0: never.

        Raises:
            OSError: There are no descriptors or processes left; nothing has changed.
        """
        with contextlib.ExitStack() as undo:
            pipe = StatusPipe()
            undo.callback(pipe.close)
            ours, theirs = channels.pair()
            undo.callback(ours.close)
            undo.callback(theirs.close)
            bell = os.eventfd(0, os.EFD_CLOEXEC)
            undo.callback(os.close, bell)
            stack_file = self._stack_files.of(slot)
            self._board.new_worker(slot)
            spec = WorkerSpec(
                slot=slot,
                generation=generation.number,
                app=generation.app,
                service=generation.service,
                settings=generation.settings,
                listeners=self._listeners,
                board=self._board.page,
                bell=bell,
                pipe=pipe,
                channel=theirs,
                stack_file=stack_file,
                master=self._master,
                recycle_at=recycle_at,
                bus=self._bus,
            )
            _flush()  # what is in the buffer would be written by each worker again
            with signals_blocked():
                pid = os.fork()
                if pid == 0:
                    ours.close()
                    self._become_worker(spec)
            undo.callback(os.waitpid, pid, 0)
            undo.callback(os.kill, pid, signal.SIGKILL)
            worker = WorkerHandle(pid, generation, pipe, ours, bell, stack_file)
            undo.pop_all()
        theirs.close()
        pipe.keep_reader()
        return worker

    def reaped(self, slot: int) -> None:
        """Remove what a dead worker had subscribed to."""
        if self._bus is not None:
            self._bus.clear(slot)

    def close(self) -> None:
        """Close everything."""
        self._stack_files.close_all_but(None)
        if self._bus is not None:
            self._bus.close()

    def _become_worker(self, spec: WorkerSpec) -> NoReturn:
        """Turn the new process into a worker, to its end."""
        status = 1
        try:
            spec.pipe.keep_writer()
            self._stack_files.close_all_but(spec.slot)
            self._close_inherited()
            os.setpgid(0, 0)  # what a handler starts can then be killed with it
            spec = evolve(
                spec,
                channel=channels.end_of(with_high_number(spec.channel.detach())),
                stack_file=with_high_number(spec.stack_file),
            )
            worker = Worker(spec)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals())
            status = worker.run()
        except LeaveNow:
            status = 0
        except BaseException as error:
            status = exit_status(error)
            log.exception("worker failed pid=%d", os.getpid())
        finally:
            _flush()
            if os.getppid() != self._master:  # it has ended, so it does not end what is left behind
                with contextlib.suppress(OSError):
                    os.killpg(os.getpid(), signal.SIGKILL)
            os._exit(status)


def _flush() -> None:
    """Write out what was printed, if there is anywhere to write it."""
    if sys.stdout is not None:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
