"""Signals to workers, by pidfd, and what is left of one that was killed. Used by the master alone.

A pid can belong to a stranger a moment after its process was reaped; a pidfd cannot.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import socket

from linepool.kernel.listeners import socket_cookie

_PIDFD_GETFD = 438  # number of the system call, on every architecture (pidfd_getfd(2))
_DEATH = 0.01  # seconds to wait for a killed process; it takes about 1 ms if the machine has time

_libc = ctypes.CDLL(None, use_errno=True)


class Process:
    """A child process that leads a process group, from its fork until it is reaped."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        # Safe from reuse of the pid: the child is not reaped before this object reaps it.
        self.pidfd = os.pidfd_open(pid)
        self._reaped = False

    def send(self, number: signal.Signals) -> None:
        """Send a signal; to a process that is gone already, it does nothing."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, number)

    def kill(self) -> bool:
        """Kill it and what it has started; return whether it is dead already."""
        self.send(signal.SIGKILL)
        self._kill_group()
        return self.is_dead(_DEATH)

    def is_dead(self, seconds: float = 0.0) -> bool:
        """Whether it has ended, or does so within some seconds."""
        if self._reaped:
            return True
        poller = select.poll()
        poller.register(self.pidfd, select.POLLIN)
        return bool(poller.poll(seconds * 1000))

    def reap(self) -> int | None:
        """Return how the process ended (exit status, or minus the signal), or None: it lives.

        What it had started is killed too, unless it ended in order. After that only ``is_dead`` and
        ``close`` may be called.
        """
        result = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if result is None:
            return None
        if result.si_code != os.CLD_EXITED or result.si_status != 0:
            self._kill_group()  # before it is reaped: until then no stranger can have its number
        os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED)
        self._reaped = True
        return result.si_status if result.si_code == os.CLD_EXITED else -result.si_status

    def take_descriptor(self, number: int) -> int:
        """Return a copy of one of its descriptors.

        Raises:
            OSError: It has no such descriptor, or the kernel forbids it (EPERM).
        """
        copy: int = _libc.syscall(_PIDFD_GETFD, self.pidfd, number, 0)
        if copy < 0:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error))
        return copy

    def take_socket(self, number: int, cookie: int) -> socket.socket | None:
        """Return a copy of one of its sockets, or None: it cannot be had, or is another by now."""
        try:
            copy = self.take_descriptor(number)
        except OSError:
            return None
        try:
            sock = socket.socket(fileno=copy)
        except OSError:  # it is a file by now
            os.close(copy)
            return None
        if socket_cookie(sock) == cookie:
            return sock
        sock.close()
        return None

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self.pidfd)

    def _kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)


def signal_name(number: int) -> str:
    """Return ``SIGKILL`` and the like; the number, for a signal that has no name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)
