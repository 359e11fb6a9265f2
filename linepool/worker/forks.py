"""What a process must not have of the worker's that the app's code forks in one.

Runs in workers, at each fork that Python makes there: ``os.fork``, ``os.forkpty``, multiprocessing's,
and subprocess with a ``preexec_fn``. The new process is a copy of the worker. Here it gets the usual
signal handlers, loses the worker's descriptors and its clients', and gets private copies of the shared
pages. Signals are blocked until that is done: one that is meant for the new process, such as that of
``Process.terminate()``, would otherwise be lost in a handler of the worker's.
"""

from __future__ import annotations

import contextlib
import faulthandler
import mmap
import os
import resource
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterable

from linepool import forked
from linepool.kernel import features
from linepool.kernel.listeners import Listener
from linepool.kernel.memory import stop_sharing
from linepool.worker.ending import own_exit_functions
from linepool.worker.interrupts import DUMP, RAISE

_MOST_FILES = 65536  # that are looked at where the system does not list them
_HANDLED = (signal.SIGTERM, signal.SIGQUIT, signal.SIGINT, signal.SIGHUP, RAISE, DUMP)


class Forks:
    """The hooks of one worker.

    Pre-condition: the worker has installed its signal handlers.

    Args:
        listeners: Where its clients connect.
        pages: The pages that it shares with other processes.
        descriptors: Returns those that are its own, besides clients' and listeners.
        has_faulthandler: Whether the stacks of crashes go to standard error in what is forked, for they went
            somewhere before the worker has taken its own; None: it has not.
    """

    def __init__(
        self,
        listeners: Iterable[Listener],
        pages: Iterable[mmap.mmap],
        descriptors: Callable[[], Iterable[int]],
        *,
        has_faulthandler: bool | None = None,
    ) -> None:
        self._addresses = [(one.socket.family, one.socket.getsockname()) for one in listeners]
        self._pages = list(pages)
        self._descriptors = descriptors
        self._has_faulthandler = has_faulthandler
        self._handlers = {number: signal.getsignal(number) for number in _HANDLED}
        self._masks = threading.local()
        self._is_worker = True
        os.register_at_fork(
            before=self._before, after_in_parent=self._unblock, after_in_child=self._become_child
        )

    def _before(self) -> None:
        if self._is_worker:
            forked.is_forking = True
            everything = signal.valid_signals()
            self._masks.before = signal.pthread_sigmask(signal.SIG_SETMASK, everything)

    def _unblock(self) -> None:
        if self._is_worker:
            signal.pthread_sigmask(signal.SIG_SETMASK, self._masks.before)
            forked.is_forking = False

    def _become_child(self) -> None:
        forked.depth += 1
        if not self._is_worker:
            return
        self._is_worker = forked.is_forking = False
        try:
            self._reset_signals()
            self._close_descriptors()
            if self._has_faulthandler is not None:
                faulthandler.disable()
            if self._has_faulthandler:
                with contextlib.suppress(
                    RuntimeError, ValueError, OSError
                ):  # nothing is open there
                    faulthandler.enable()
            for page in self._pages:
                stop_sharing(page)
            own_exit_functions()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, self._masks.before)

    def _reset_signals(self) -> None:
        for number, handler in self._handlers.items():
            if signal.getsignal(number) != handler or handler is signal.SIG_IGN:
                continue  # it is the app's, or was ignored when the server was started
            if number == DUMP:
                faulthandler.unregister(number)
            usual = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            signal.signal(number, usual)

    def _close_descriptors(self) -> None:
        own = {number for number in self._descriptors() if number >= 0}  # a closed socket has none
        with contextlib.suppress(OSError):
            os.close(min(own))  # there may be no number left for another one
        # It takes the place of each: a number that became free could be that of a file that this process
        # opens, while its copies of the worker's objects still refer to it.
        nothing = os.open("/", features.O_PATH | os.O_CLOEXEC)
        for descriptor in {*own, *_open_descriptors()} - {nothing}:
            if descriptor in own or self._is_clients(descriptor):
                os.dup2(nothing, descriptor, inheritable=False)

    def _is_clients(self, descriptor: int) -> bool:
        """Whether it is a listener's or the server's end of a connection, wherever that is being handled."""
        try:
            sock = socket.socket(fileno=descriptor)
        except OSError:  # it is not a socket
            return False
        try:
            return any(_is_at(sock, *address) for address in self._addresses)
        finally:
            sock.detach()


def _is_at(sock: socket.socket, family: socket.AddressFamily, address: object) -> bool:
    """Whether a socket has a listener's address, as the sockets that it accepts do."""
    if sock.family != family:
        return False
    name = sock.getsockname()
    if not isinstance(address, tuple):
        return bool(name == address)
    return name[1] == address[1] and (address[0] in ("0.0.0.0", "::") or name[0] == address[0])  # noqa: S104


def _open_descriptors() -> Iterable[int]:
    """Return the descriptors of this process, or numbers of which some are."""
    # Other systems may list some numbers there, open or not, unless fdescfs(5) is mounted.
    place = "/dev/fd" if sys.platform == "darwin" else "/proc/self/fd"
    with contextlib.suppress(OSError):
        return [int(name) for name in os.listdir(place)]
    return range(min(resource.getrlimit(resource.RLIMIT_NOFILE)[0], _MOST_FILES))
