"""The birth of workers and of the observer: a process forks a process that forks the new one, and ends.

Runs in the loader, and in each new process until it begins its work. By that it becomes a child of the
master, which is the nearest subreaper (prctl(2), PR_SET_CHILD_SUBREAPER), and so the one that learns how it
ends. Where there are no subreapers and pidfds, the process in the middle forks the keeper of the new one
(``kernel.keeper``), and ends.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import select
import signal
import socket
import struct
import time
from typing import NoReturn

from attrs import frozen

from linepool import core
from linepool.errors import LeaveNow
from linepool.ipc import channel as channels
from linepool.ipc.board import Board
from linepool.ipc.figures import Figures
from linepool.ipc.letters import Letter, LetterBox
from linepool.ipc.status_pipe import StatusPipe
from linepool.kernel import features
from linepool.kernel.holder import Sleep, end_holder, start_holder
from linepool.kernel.keeper import become_keeper
from linepool.kernel.listeners import Listener, listener_at
from linepool.kernel.shortage import exit_status
from linepool.kernel.signals import signal_at_parents_end, signals_blocked
from linepool.kernel.standard import flush, with_high_number
from linepool.kernel.title import set_title
from linepool.loader.image import Image
from linepool.loader.observer import Observer
from linepool.pubsub.bus import Bus
from linepool.service import Service
from linepool.settings import Settings
from linepool.worker.worker import Worker, WorkerSpec

_sleep: Sleep | None = None  # as holders do, in pure Python
if core.compiled:
    # Now: the user whom the loader becomes may not be allowed to read the file.
    from linepool.core import asleep

    _sleep = asleep.sleep

log = logging.getLogger("linepool")

_LONGEST = 5.0  # seconds for a fork: functions that the app has registered for forks may hang
_LOOK_EVERY = 0.0005  # seconds
_LINK = socket.SOCK_SEQPACKET if features.SEQPACKET else socket.SOCK_STREAM
_BORN = struct.Struct("@ii")  # the worker's pid, or 0 and the number of an error


class NotBorn(Exception):  # noqa: N818 - what has happened
    """A process was not forked; the text says why."""


@frozen
class Shared:
    """What all workers of a generation share.

    Attributes:
        settings: As the master has them: the limits of the machine may have lowered some.
    """

    image: Image
    generation: int
    settings: Settings
    board: Board
    figures: Figures
    listeners: list[Listener]
    bus: Bus | None


class Births:
    """Forks workers, and the observer.

    Args:
        box: The loader's end of its channel, which no new process keeps.
        master: The master's pid.
        shared: What all workers get.
    """

    def __init__(self, box: LetterBox, master: int, shared: Shared) -> None:
        self._box = box
        self._master = self._parent = master
        self._shared = shared
        self._life = self._handle = -1  # of a new process that has a keeper

    def service_at(self, local: str) -> Service:
        """Return the app whose listener a connection came to, given the server's end of it."""
        shared = self._shared
        listener = listener_at(local, shared.listeners)
        table = shared.settings.table_of(listener.key) if listener else None
        return shared.image.services.get(table.app if table else "", shared.image.first)

    def spawn(self, letter: Letter) -> tuple[int, int]:
        """Fork a process; return its pid and a pidfd, which the caller owns.

        Args:
            letter: The order, SPAWN for a worker and OBSERVE for the observer, with the new process's ends of
                what connects it to the master.

        Raises:
            NotBorn: The process was not forked.
        """
        if letter.is_cut:
            raise NotBorn(os.strerror(errno.EMFILE))
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, _LINK)
        except OSError as error:
            raise NotBorn(error.strerror) from None
        with ours, theirs, contextlib.closing(letter):
            flush()  # what is in the buffer would be written by each new process again
            with signals_blocked():
                try:
                    middle = os.fork()
                except OSError as error:
                    raise NotBorn(error.strerror) from None
                if middle == 0:
                    ours.close()
                    self._fork_again(theirs, letter)
            theirs.close()
            try:
                return _told(ours)
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(middle, signal.SIGKILL)  # it may hang; otherwise it has done its work
                os.waitpid(middle, 0)

    def _fork_again(self, link: socket.socket, letter: Letter) -> NoReturn:
        """Fork the new process, tell the loader, and end."""
        try:
            try:
                pid = os.fork()
            except OSError as error:
                link.send(_BORN.pack(0, error.errno))
            else:
                if pid == 0 and not features.PIDFD:
                    self._become_kept(link, letter)
                elif pid == 0:
                    link.close()
                    self._become(letter)
                elif features.PIDFD:
                    socket.send_fds(link, [_BORN.pack(pid, 0)], [os.pidfd_open(pid)])
        finally:
            os._exit(0)

    def _become_kept(self, link: socket.socket, letter: Letter) -> NoReturn:
        """Become the keeper of a new process, which is turned into what was ordered."""

        def tell(pid: int, number: int) -> None:
            """Tell the loader pid and handle of the new process, or 0 and why there is none."""
            if pid:
                socket.send_fds(link, [_BORN.pack(pid, 0)], [number])
            else:
                link.send(_BORN.pack(0, number))

        observes = letter.kind == "OBSERVE"
        kept = become_keeper(signal.SIGKILL if observes else signal.SIGCONT, tell)
        link.close()
        self._parent, self._life = kept.keeper, kept.life
        if observes:
            self._handle = kept.handle
        else:
            os.close(kept.handle)
        self._become(letter)

    def _become(self, letter: Letter) -> NoReturn:
        """Turn the new process into what was ordered, to its end."""
        status, holder = 1, 0
        kind = "observer" if letter.kind == "OBSERVE" else "worker"
        try:
            os.setpgid(0, 0)  # what the app's code starts can then be killed with it
            if kind == "worker" and self._shared.settings.has_parker:
                # First, for the kernel copies for it what this process has written before.
                title = f"{letter.facts['slot']} {self._shared.image.apps.name}"
                holder = start_holder(f"{title} g{self._shared.generation}", _sleep)
            self._box.close()
            self._await_parent()
            status = self._observe(letter) if kind == "observer" else self._work(letter)
        except LeaveNow:
            status = 0
        except BaseException as error:
            status = exit_status(error)
            log.exception("%s failed pid=%d", kind, os.getpid())
        finally:
            flush()
            end_holder(holder)
            if os.getppid() != self._parent:  # it has ended, so it does not end what is left behind
                with contextlib.suppress(OSError):
                    os.killpg(os.getpid(), signal.SIGKILL)
            os._exit(status)

    def _work(self, letter: Letter) -> int:
        """Be a worker; return the exit status."""
        pipe, channel, bell, stack_file = letter.descriptors
        shared, slot = self._shared, letter.facts["slot"]
        worker = Worker(
            WorkerSpec(
                slot=slot,
                generation=shared.generation,
                apps=shared.image.apps,
                services=shared.image.services,
                settings=shared.settings,
                listeners=shared.listeners,
                board=shared.board,
                figures=shared.figures,
                bell=bell,
                pipe=StatusPipe.of_worker(pipe),
                channel=channels.end_of(with_high_number(channel)),
                stack_file=with_high_number(stack_file),
                master=self._master,
                parent=self._parent,
                life=self._life,
                recycle_at=letter.facts["recycle_at"],
                bus=shared.bus,
                access=shared.image.access,
                tls=shared.image.tls,
            )
        )
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals())
        return worker.run()

    def _observe(self, letter: Letter) -> int:
        """Be the observer; return the exit status."""
        channel, stack_file = map(with_high_number, letter.descriptors)
        shared = self._shared
        shared.board.memory.close()
        for listener in shared.listeners:
            listener.close()
            listener.memory.close()
        if shared.bus is not None:
            shared.bus.close()
        apps = shared.image.apps
        set_title("observer", f"{apps.name} g{shared.generation}")
        handle = self._handle if self._handle >= 0 else os.pidfd_open(os.getpid())
        observer = Observer(apps, LetterBox(channels.end_of(channel)), stack_file, handle)
        signal_at_parents_end(signal.SIGKILL)
        if os.getppid() == self._parent:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals())
            observer.run(shared.settings.observer_timeout)
        return 0

    def _await_parent(self) -> None:
        """Wait until this process is a child of the master, or of its keeper.

        Raises:
            RuntimeError: It does not become one.
        """
        give_up_at = time.monotonic() + _LONGEST
        while os.getppid() != self._parent:
            if time.monotonic() >= give_up_at:
                raise RuntimeError("this process is not a child of the master")
            time.sleep(_LOOK_EVERY)


def _told(link: socket.socket) -> tuple[int, int]:
    """Return pid and pidfd of a new worker, as the process between tells them.

    Raises:
        NotBorn: It tells an error, or nothing.
    """
    poller = select.poll()
    poller.register(link, select.POLLIN)
    if not poller.poll(_LONGEST * 1000):
        raise NotBorn(f"the fork took longer than {_LONGEST:g} s")
    data, descriptors, _, _ = socket.recv_fds(link, _BORN.size, 1)
    if len(data) < _BORN.size:
        raise NotBorn("a function that runs at forks has ended the new process")
    pid, error = _BORN.unpack(data)
    if not pid:
        raise NotBorn(os.strerror(error))
    if not descriptors:
        raise NotBorn("no descriptor is left for its pidfd")
    return pid, descriptors[0]
